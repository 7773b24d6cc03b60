-- Counts a token bucket: the time that it lacks until it is full.
--
-- ARGV[10..11]: nanoseconds to earn one token, burst. The time to fill is at most 26 days, a quarter of 2^53
-- nanoseconds, and what is missing is at most three times that. So all numbers here are exact.

local interval, burst = tonumber(ARGV[10]), tonumber(ARGV[11])
local capacity = interval * burst
-- Microseconds, and nanoseconds until full.
local at, missing
-- Terms under which they were stored.
local stored_interval, stored_burst = interval, burst

local count = {}

function count.load(state)
    at, missing, stored_interval, stored_burst = state[1], state[2], state[3], state[4]
end

function count.new()
    at, missing = 0, 0
end

function count.stored()
    return { at, missing, interval, burst }
end

-- Returns a * b / c, rounded up. The product is not exact as a double, so it is formed bit by bit, divided meanwhile.
local function scale(a, b, c)
    local quotient, rest = 0, 0
    local whole, part = math.floor(a / c), a % c
    local bit = 4503599627370496
    while bit >= 1 do
        quotient, rest = quotient * 2, rest * 2
        if b >= bit then
            b = b - bit
            quotient, rest = quotient + whole, rest + part
        end
        while rest >= c do
            quotient, rest = quotient + 1, rest - c
        end
        bit = bit / 2
    end
    return rest > 0 and quotient + 1 or quotient
end

-- Changed terms refill nothing: the bucket stays full to the same share. Time that has passed before counts by the
-- earlier terms.
function count.advance()
    local passed = math.max(now - at, 0)
    -- Beyond 2^53 the product is rounded, but is more than all that can be missing.
    missing = math.max(missing - passed * 1000, 0)
    at = now
    if stored_interval ~= interval or stored_burst ~= burst then
        missing = scale(missing, capacity, stored_interval * stored_burst)
    end
    return nil
end

function count.left()
    return math.floor(math.max(capacity - missing, 0) / interval)
end

function count.take(tokens)
    missing = missing + tokens * interval
end

function count.charge(tokens)
    local deepest = math.max(2 * capacity, missing)
    count.take(tokens)
    missing = math.min(missing, deepest)
end

function count.give_back(tokens)
    missing = math.max(missing - tokens * interval, 0)
end

-- Nanoseconds; -1 for never.
function count.next(tokens)
    if tokens > burst then
        return -1
    end
    return math.max(missing + tokens * interval - capacity, 0)
end

function count.portion(wanted)
    return math.min(wanted, count.left())
end

-- Microseconds until forgetting the count changes nothing.
function count.idle_in()
    return missing / 1000
end
