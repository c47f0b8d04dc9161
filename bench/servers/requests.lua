-- wrk plays the requests of a file in turn: each is its number of bytes, a line end, the bytes.
local requests, at = {}, 0

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   local size = file:read("*n")
   while size do
      file:read(1)
      requests[#requests + 1] = file:read(size)
      size = file:read("*n")
   end
   file:close()
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency, _)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.timeout
   io.write(string.format(
      'summary {"answers": %d, "microseconds": %d, "refused": %d, "failed": %d, "p50": %d, "p99": %d}\n',
      summary.requests, summary.duration, errors.status, failed,
      latency:percentile(50), latency:percentile(99)))
end
