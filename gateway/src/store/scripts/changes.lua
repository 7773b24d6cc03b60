-- Lists the notices after a version, the oldest first.
--
-- KEYS: names by version, notices by name. ARGV: version, most notices. Each has name, version, time of the
-- announcement and of the end in microseconds, value.

local listed = {}
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #found, 2 do
    local notice = cmsgpack.unpack(redis.call('HGET', KEYS[2], found[i]))
    listed[#listed + 1] = { found[i], tonumber(found[i + 1]), notice[1], notice[2], notice[3] }
end
return listed
