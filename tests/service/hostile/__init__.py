"""What attackers, broken clients and scanners send: a table, and a real server that lives on."""
