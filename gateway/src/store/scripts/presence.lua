-- Notes that a replica is there, and forgets those that were silent.
--
-- KEYS: replicas by name. ARGV: name, text, microseconds for which a replica is remembered. Each is stored as the time of
-- its last word and its text. Without a text it leaves.

local MOST = 1000
local name, text, keep = ARGV[1], ARGV[2], tonumber(ARGV[3])
local all = redis.call('HGETALL', KEYS[1])
local count = 0
for i = 1, #all, 2 do
    if now - tonumber(string.match(all[i + 1], '^%d+')) > keep then
        redis.call('HDEL', KEYS[1], all[i])
    elseif all[i] ~= name then
        count = count + 1
    end
end
if text == '' then
    redis.call('HDEL', KEYS[1], name)
elseif count < MOST then
    redis.call('HSET', KEYS[1], name, string.format('%.0f ', now) .. text)
    redis.call('PEXPIRE', KEYS[1], math.ceil(keep / 1000))
end
return count
