-- Executes one request of a replica for slots: the rule of `policies::lease::CentralSlots`.
--
-- ARGV[1..5]: microseconds of a heartbeat, replica, sequence, slots wanted, cap. The state is the slots of each replica:
-- its name, sequence, slots, time in microseconds.

local heartbeat, replica, sequence = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local wanted, cap = tonumber(ARGV[4]), tonumber(ARGV[5])
local NAME, SEQUENCE, SLOTS, AT = 1, 2, 3, 4

local kept, mine, taken = {}, nil, 0
for _, slots in ipairs(load_state() or {}) do
    slots[AT] = math.min(slots[AT], now)
    if now < slots[AT] + 2 * heartbeat then
        if slots[NAME] == replica then
            mine = slots
        else
            kept[#kept + 1] = slots
            taken = taken + slots[SLOTS]
        end
    end
end

if mine and sequence <= mine[SEQUENCE] then
    kept[#kept + 1] = mine
    store_state(kept, 2 * heartbeat)
    return false
end
if #kept >= MOST_REPLICAS then
    return redis.error_reply('TOOMANY replicas use this limit')
end

local granted = math.min(wanted, math.max(cap - taken, 0))
kept[#kept + 1] = { replica, sequence, granted, now }
store_state(kept, 2 * heartbeat)
return { sequence, granted }
