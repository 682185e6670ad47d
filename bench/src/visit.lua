-- wrk's script: visitors come one after the other, round and round.
-- Argument: a file whose lines are their Cookie headers; none: nobody has a cookie.

local requests = {}
local at = 0

function init(args)
  if args[1] then
    for cookie in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", nil, { Cookie = cookie })
    end
  else
    requests[1] = wrk.format("GET")
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("figures: %d %d %d %d %d %d\n", summary.requests, failed, summary.bytes,
    summary.duration, latency:percentile(50), latency:percentile(99)))
end
