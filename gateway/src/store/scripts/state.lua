-- Reads and writes the state of one count, which is one value, and the name of the store's memory.
--
-- KEYS: the count, the name of the memory. ARGV[1]: seconds for which that name is kept, 0 for ever.

local MOST_REPLICAS = 1000

local function load_state()
    local stored = redis.call('GET', KEYS[1])
    return stored and cmsgpack.unpack(stored)
end

-- Writes the state. It is kept while it can mean anything, at least for `kept` microseconds, and a second longer.
local function store_state(state, kept)
    local milliseconds = math.ceil(kept / 1000) + 1000
    redis.call('SET', KEYS[1], cmsgpack.pack(state), 'PX', string.format('%.0f', milliseconds))
end

-- Returns the name of the store's memory: the time at which it was named, as text.
local function epoch()
    local name = redis.call('GET', KEYS[2])
    if not name then
        name = string.format('%.0f', now)
        if tonumber(ARGV[1]) > 0 then
            redis.call('SET', KEYS[2], name, 'EX', ARGV[1])
        else
            redis.call('SET', KEYS[2], name)
        end
    end
    return name
end
