-- Executes requests of one replica on counts of one owner, in their order.
--
-- KEYS: name of the memory, the last version of the notices if it is on this node, then the counts. ARGV[2]: number of
-- keys before the counts; then for each count its kind, the number of its arguments, and these.
--
-- Returns the name of the memory, the version as text, and the reply of each count. One that fails is an error, and the
-- others are executed.

local before = tonumber(ARGV[2])
local replies = { epoch, before > 1 and (redis.call('GET', KEYS[2]) or '0') }
local at = 3
for number = before + 1, #KEYS do
    local arguments = {}
    for i = 1, tonumber(ARGV[at + 1]) do
        arguments[i] = ARGV[at + 1 + i]
    end
    local executed, reply = pcall(kinds[ARGV[at]], { KEYS[number] }, arguments)
    if not executed and type(reply) ~= 'table' then
        reply = redis.error_reply(tostring(reply))
    end
    replies[#replies + 1] = reply
    at = at + 2 + #arguments
end
return replies
