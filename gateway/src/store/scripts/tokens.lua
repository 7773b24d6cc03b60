-- Executes one request of a replica on the `count` above: the rule of `policies::lease::Central`.
--
-- ARGV[1..9]: microseconds of a lease, replica, sequence, held, returned, charged, needed, waiting, wanted.
-- The last argument: most. All amounts are whole and below 2^53.
--
-- The state is { count, lease of each replica... }.

local lease_time, replica, sequence = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local held, returned, charged = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local needed, waiting, wanted = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local most = tonumber(ARGV[#ARGV])

-- Fields of a lease: name of the replica, tokens that it may hold, time of its last request, time from which none of
-- them can be spent (both in microseconds), last reply.
local NAME, OUT, AT, ENDS, REPLY = 1, 2, 3, 4, 5
-- Fields of a reply: sequence, tokens granted, nanoseconds for which they may be used, tokens left, nanoseconds until
-- the next (-1 for never), replicas, name of the store's memory, 1 if it remembered the replica.
local SEQUENCE = 1

local state = load_state()
if state then
    count.load(state[1])
else
    count.new()
end
local ends_in = count.advance()

-- Forgets the replicas that were silent for two lease times. A lease of the future, from before the clock was set back,
-- counts as one of now.
local mine
local others = {}
for i = 2, state and #state or 1 do
    local lease = state[i]
    if lease[AT] > now then
        lease[AT], lease[ENDS] = now, now + lease_time
    end
    if now < lease[AT] + 2 * lease_time then
        if lease[NAME] == replica then
            mine = lease
        else
            others[#others + 1] = lease
        end
    end
end

local function store()
    local kept = { count.stored(), mine }
    for _, lease in ipairs(others) do
        kept[#kept + 1] = lease
    end
    store_state(kept, math.max(count.idle_in(), 2 * lease_time))
end

if mine and sequence <= mine[REPLY][SEQUENCE] then
    store()
    return sequence == mine[REPLY][SEQUENCE] and mine[REPLY]
end
if not mine and #others >= MOST_REPLICAS then
    return redis.error_reply('TOOMANY replicas use this limit')
end

local known = mine and 1 or 0
if mine then
    count.give_back(math.min(returned, math.max(mine[OUT] - held, 0)), mine[AT])
end
count.charge(charged)
local replicas = #others + 1

-- Grants nothing, or from what is needed to what is wanted. Beyond what callers wait for, a replica has its part of all
-- tokens on lease, if others have left so many.
local granted = 0
if count.left() >= needed then
    local out = 0
    for _, lease in ipairs(others) do
        if now < lease[ENDS] then
            out = out + lease[OUT]
        end
    end
    local part = math.min(math.floor(most / replicas), math.max(most - out, 0))
    local room = math.min(wanted, math.max(part - held, 0))
    granted = math.min(math.max(count.portion(room, replicas), waiting), count.left())
end
count.take(granted)

local next_in = 0
if granted < math.max(needed, math.min(wanted, 1)) then
    -- Nanoseconds until tokens of another replica may come back. What has ended is returned at any moment.
    local returns_in
    for _, lease in ipairs(others) do
        if lease[OUT] > 0 then
            local ends = math.max((lease[ENDS] - now) * 1000, lease_time * 125)
            returns_in = returns_in and math.min(returns_in, ends) or ends
        end
    end
    next_in = count.next(math.max(needed, 1), returns_in)
end

local usable_for = math.min(ends_in or lease_time, lease_time) * 1000
local reply = { sequence, granted, usable_for, count.left(), next_in, replicas, epoch, known }
mine = { replica, held + granted, now, now + lease_time, reply }
store()
return reply
