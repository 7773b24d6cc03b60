-- Keeps one notice for all replicas, and gives it the next version.
--
-- KEYS: last version, names by version, notices by name, names by end. ARGV: name, value, time in microseconds at which
-- it was announced (0 for now), time at which it ends (0 for never), most notices.
--
-- Of two notices of one name the later holds. Returns the time of the notice that holds, 0 if there are too many.

local name, value, at, ends = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function text(number)
    return string.format('%.0f', number)
end

for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', text(now), 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[2], ended)
    redis.call('HDEL', KEYS[3], ended)
    redis.call('ZREM', KEYS[4], ended)
end

local stored = redis.call('HGET', KEYS[3], name)
local before = stored and cmsgpack.unpack(stored)[1]
if at == 0 then
    at = before and math.max(now, before + 1) or now
elseif before and before >= at then
    return before
end
if not before and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
    return 0
end
redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[1]), name)
redis.call('HSET', KEYS[3], name, cmsgpack.pack({ at, ends, value }))
if ends > 0 then
    redis.call('ZADD', KEYS[4], text(ends), name)
else
    redis.call('ZREM', KEYS[4], name)
end
return at
