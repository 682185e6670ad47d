-- wrk's script: visitors come one after the other, round and round.
-- Argument: a file whose lines are their Cookie headers.

local requests = {}
local at = 0

function init(args)
  for cookie in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", "/", { Cookie = cookie })
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("requests=%d failed=%d\n", summary.requests, failed))
end
