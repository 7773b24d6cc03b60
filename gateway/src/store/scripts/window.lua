-- Counts a sliding window: the tokens of each cell, a 64th of the window.
--
-- ARGV[10..12]: limit, nanoseconds of the window and of a cell. A time in nanoseconds is not exact as a double, so it is
-- divided digit by digit, and spans are computed from numbers of cells.

local limit, window, cell = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
-- Microseconds of the time that counts; the number of its cell, and the nanoseconds since that began.
local at, number, since_start
-- Numbers of cells and their tokens, in rising order from `first` to `last`; none is empty.
local numbers, tokens_of, first, last = {}, {}, 1, 0

local count = {}

function count.load(state)
    at = state[1]
    for i = 2, #state, 2 do
        last = last + 1
        numbers[last], tokens_of[last] = state[i], state[i + 1]
    end
end

function count.new()
    at = 0
end

function count.stored()
    local state = { at }
    for i = first, last do
        state[#state + 1] = numbers[i]
        state[#state + 1] = tokens_of[i]
    end
    return state
end

-- Divides the time by the length of a cell, as in writing: three decimals after the microsecond.
local function divide()
    number, since_start = math.floor(at / cell), at % cell
    for _ = 1, 3 do
        local dividend = since_start * 10
        number = number * 10 + math.floor(dividend / cell)
        since_start = dividend % cell
    end
end

-- Returns the nanoseconds until a cell no longer counts.
local function counts_for(i)
    return math.max((numbers[i] + 1 - number) * cell + window - since_start, 0)
end

local function counted()
    local sum = 0
    for i = first, last do
        sum = sum + tokens_of[i]
    end
    return sum
end

function count.advance()
    at = math.max(at, now)
    divide()
    while first <= last and counts_for(first) == 0 do
        first = first + 1
    end
    return nil
end

function count.left()
    return math.max(limit - counted(), 0)
end

function count.take(tokens)
    if tokens == 0 then
        return
    end
    if first <= last and numbers[last] == number then
        tokens_of[last] = tokens_of[last] + tokens
    else
        last = last + 1
        numbers[last], tokens_of[last] = number, tokens
    end
end

function count.charge(tokens)
    count.take(math.min(tokens, math.max(2 * limit - counted(), 0)))
end

function count.give_back(tokens)
    while tokens > 0 and first <= last do
        local removed = math.min(tokens, tokens_of[first])
        tokens = tokens - removed
        tokens_of[first] = tokens_of[first] - removed
        if tokens_of[first] == 0 then
            first = first + 1
        end
    end
end

function count.next(tokens)
    if tokens > limit then
        return -1
    end
    local too_many, wait = math.max(counted() + tokens - limit, 0), 0
    for i = first, last do
        if too_many == 0 then
            break
        end
        too_many = math.max(too_many - tokens_of[i], 0)
        wait = counts_for(i)
    end
    return wait
end

function count.portion(wanted)
    return math.min(wanted, count.left())
end

function count.idle_in()
    return first <= last and counts_for(last) / 1000 or 0
end
