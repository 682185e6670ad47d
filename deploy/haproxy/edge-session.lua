-- Asks edge-session before a request is forwarded: docs/gateways.md.

local address = "http://127.0.0.1:9091/auth"

-- The headers that the application gets.
local told = { "edge-session", "edge-session-id", "remote-user" }

-- Not part of a question without a body.
local left_out = {
    ["connection"] = true,
    ["content-length"] = true,
    ["expect"] = true,
    ["te"] = true,
    ["transfer-encoding"] = true,
    ["upgrade"] = true,
    ["x-forwarded-method"] = true,
    ["x-forwarded-uri"] = true,
}

local function first(headers, name)
    local values = headers[name]
    return values and values[0]
end

core.register_action("edge_session", { "http-req" }, function(txn)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not left_out[name] then
            headers[name] = {}
            -- HAProxy counts them from 0, and sends those from 1.
            for at = 0, #values do
                headers[name][at + 1] = values[at]
            end
        end
    end
    headers["x-forwarded-method"] = { txn.sf:method() }
    headers["x-forwarded-uri"] = { txn.sf:pathq() }

    local answer = core.httpclient():get { url = address, headers = headers, timeout = 10000 }
    if answer.status >= 200 and answer.status < 300 then
        for _, name in ipairs(told) do
            txn.http:req_set_header(name, first(answer.headers, name) or "")
        end
        txn:set_var("txn.edge_session_passed", true)
        local vary = first(answer.headers, "vary")
        if vary then
            txn:set_var("txn.edge_session_vary", vary)
        end
        local cookie = first(answer.headers, "set-cookie")
        if cookie then
            txn:set_var("txn.edge_session_cookie", cookie)
            txn:set_var("txn.edge_session_cache", first(answer.headers, "cache-control") or "no-store")
        end
        return
    end
    -- If edge-session is unreachable, the request is refused. HAProxy's own 503 has no identifier.
    if answer.status < 300 or answer.status == 503 and not first(answer.headers or {}, "x-request-id") then
        core.Alert("edge-session does not answer at " .. address)
    end
    local reply = txn:reply { status = answer.status >= 300 and answer.status or 503, body = answer.body }
    for _, name in ipairs { "location", "set-cookie", "cache-control", "content-type" } do
        local value = first(answer.headers or {}, name)
        if value then
            reply:add_header(name, value)
        end
    end
    txn:done(reply)
end, 0)
