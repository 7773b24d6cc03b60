-- Reads and writes the state of one count, which is one value. KEYS[1]: the count.

local function load_state()
    local stored = redis.call('GET', KEYS[1])
    return stored and cmsgpack.unpack(stored)
end

-- Writes the state. It is kept while it can mean anything, at least for `kept` microseconds, and a second longer.
local function store_state(state, kept)
    local milliseconds = math.ceil(kept / 1000) + 1000
    redis.call('SET', KEYS[1], cmsgpack.pack(state), 'PX', string.format('%.0f', milliseconds))
end
