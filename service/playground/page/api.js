/** Asks the service, and keeps for each question the answer that belongs to it. */

const KEY = "persona-key";
const SECONDS_AGAIN = 2;
const LONGEST_WAIT_S = 60;

/** Why there is no answer. */
export class Failure extends Error {
  /**
   * @param {number} status 0: nobody answered
   * @param {string} message
   * @param {(string | number)[]} path to the place in the body
   * @param {number | null} againInS when asking again makes sense
   */
  constructor(status, message, path = [], againInS = null) {
    super(message);
    this.status = status;
    this.path = path;
    this.againInS = againInS;
    this.isOfService = status === 0 || status === 503; // not of the question
  }
}

/** The key that the user has given, for this tab alone. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (/** @type {string} */ key) => sessionStorage.setItem(KEY, key),
};

/** @type {(path: string, body: object | undefined, signal?: AbortSignal) => Promise<any>} */
export const ask = async (path, body, signal) => {
  const headers = /** @type {Record<string, string>} */ ({});
  if (body) headers["content-type"] = "application/json";
  if (apiKey.get()) headers["x-api-key"] = apiKey.get();
  const method = body ? "POST" : "GET";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, "The service does not answer.", [], SECONDS_AGAIN);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const { message = `status ${response.status}`, path: place = [] } = answer?.error ?? {};
  throw new Failure(response.status, message, place, againIn(response));
};

/** @type {(response: Response) => number | null} */
const againIn = (response) => {
  if (response.status === 429) return Number(response.headers.get("retry-after")) || SECONDS_AGAIN;
  return response.status >= 502 ? SECONDS_AGAIN : null;
};

/** The questions that the page has now, each with its own answer or none. */
export class Answers {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    /** @type {Map<string, Entry>} */
    this.entries = new Map();
  }

  /**
   * Asks what is new, and drops what nobody wants to know any more.
   * @param {Iterable<Question>} questions each may depend on the answers to those before
   */
  want(questions) {
    const names = new Set();
    for (const question of questions) {
      names.add(question.name);
      const text = JSON.stringify([question.path, question.body]);
      if (this.entries.get(question.name)?.question !== text) this.load(question, text);
    }
    for (const name of this.entries.keys()) if (!names.has(name)) this.drop(name);
  }

  /** @param {string} name @returns {Answer} */
  get(name) {
    return this.entries.get(name) ?? { status: "loading" };
  }

  /** Asks again what has failed. */
  again() {
    for (const [name, entry] of this.entries)
      if (entry.status === "failed") {
        const [path, body] = JSON.parse(entry.question);
        this.load({ name, path, body: body ?? undefined }, entry.question);
      }
    this.onChange();
  }

  /** Looks whether an answer has changed; until then it stays. @param {string} name @param {string} path */
  async refresh(name, path) {
    const value = await ask(path, undefined).catch(() => null);
    const entry = this.entries.get(name);
    if (value && entry) this.entries.set(name, { ...entry, value });
    this.onChange();
  }

  /** @param {string} name */
  drop(name) {
    const entry = this.entries.get(name);
    entry?.stop.abort();
    clearTimeout(entry?.timer);
    this.entries.delete(name);
  }

  /** @param {Question} question @param {string} text */
  async load({ name, path, body }, text) {
    const before = this.entries.get(name);
    this.drop(name);
    const stop = new AbortController();
    const error = before?.question === text ? before.error : undefined; // it is told until there is better news
    this.entries.set(name, { status: "loading", question: text, stop, error });
    /** @type {Entry} */
    const entry = { status: "done", question: text, stop };
    try {
      entry.value = await ask(path, body, stop.signal);
    } catch (error) {
      if (!(error instanceof Failure)) return;
      Object.assign(entry, { status: "failed", error });
      const again = () => this.load({ name, path, body }, text);
      if (error.againInS && error.againInS <= LONGEST_WAIT_S) entry.timer = setTimeout(again, 1000 * error.againInS);
    }
    if (stop.signal.aborted) return clearTimeout(entry.timer); // something else is asked by now
    this.entries.set(name, entry);
    this.onChange();
  }
}
