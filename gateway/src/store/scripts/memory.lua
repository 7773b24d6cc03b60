-- Reads the name of the store's memory: the time at which it was named, as text. The counts below know it as `epoch`.
--
-- KEYS[1]: the name. ARGV[1]: seconds for which it is kept, 0 for ever.

local MOST_REPLICAS = 1000

local epoch = redis.call('GET', KEYS[1])
if not epoch then
    epoch = string.format('%.0f', now)
    if tonumber(ARGV[1]) > 0 then
        redis.call('SET', KEYS[1], epoch, 'EX', ARGV[1])
    else
        redis.call('SET', KEYS[1], epoch)
    end
end
