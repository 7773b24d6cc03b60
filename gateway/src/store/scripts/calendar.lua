-- Counts a calendar quota: the tokens used and on lease in the current period of UTC.
--
-- The last arguments: limit, period, and one more. Periods are computed as in `policies::calendar`: the days of a month come from Howard
-- Hinnant's `days_from_civil` and `civil_from_days`.

local limit, every = tonumber(ARGV[#ARGV - 2]), ARGV[#ARGV - 1]
local MINUTE, MINUTES_OF_DAY = 60000000, 1440
-- Days from 0000-03-01 to the epoch, and days in 400 years.
local DAYS_BEFORE_EPOCH, DAYS_OF_ERA = 719468, 146097
-- Start of the period that is counted, in microseconds.
local since, used

local floor = math.floor

local function weekday(day)
    return (day + 3) % 7
end

local function month_of_day(day)
    day = day + DAYS_BEFORE_EPOCH
    local era, of_era = floor(day / DAYS_OF_ERA), day % DAYS_OF_ERA
    local leap_days = floor(of_era / 1460) - floor(of_era / 36524) + floor(of_era / 146096)
    local year_of_era = floor((of_era - leap_days) / 365)
    local of_year = of_era - (365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100))
    local from_march = floor((5 * of_year + 2) / 153)
    local year = era * 400 + year_of_era
    if from_march < 10 then
        return year, from_march + 3
    end
    return year + 1, from_march - 9
end

local function first_day(year, month)
    local from_march = month - 3
    if month <= 2 then
        year, from_march = year - 1, month + 9
    end
    local era, year_of_era = floor(year / 400), year % 400
    local of_year = floor((153 * from_march + 2) / 5)
    local of_era = year_of_era * 365 + floor(year_of_era / 4) - floor(year_of_era / 100) + of_year
    return era * DAYS_OF_ERA + of_era - DAYS_BEFORE_EPOCH
end

-- Returns the first minute of the period that contains `minute`, and of the next period.
local function period(minute)
    local day = floor(minute / MINUTES_OF_DAY)
    if every == 'minute' then
        return minute, minute + 1
    elseif every == 'hour' then
        local start = minute - minute % 60
        return start, start + 60
    elseif every == 'day' then
        return day * MINUTES_OF_DAY, (day + 1) * MINUTES_OF_DAY
    elseif every == 'week' then
        local start = math.max(day - weekday(day), 0)
        return start * MINUTES_OF_DAY, (day + 7 - weekday(day)) * MINUTES_OF_DAY
    end
    local year, month = month_of_day(day)
    local start = first_day(year, month)
    if month == 12 then
        year, month = year + 1, 0
    end
    return start * MINUTES_OF_DAY, first_day(year, month + 1) * MINUTES_OF_DAY
end

local count = {}

function count.load(state)
    since, used = state[1], state[2]
end

function count.new()
    since, used = 0, 0
end

function count.stored()
    return { since, used }
end

-- Microseconds until the period ends.
local function ends_in()
    local _, ends = period(since / MINUTE)
    return math.max(ends * MINUTE - now, 0)
end

function count.advance()
    local start = period(floor(now / MINUTE)) * MINUTE
    if start > since then
        since, used = start, 0
    end
    return ends_in()
end

function count.left()
    return math.max(limit - used, 0)
end

function count.take(tokens)
    used = math.min(used + tokens, 9007199254740991)
end

count.charge = count.take

function count.give_back(tokens, granted_at)
    if granted_at >= since then
        used = math.max(used - tokens, 0)
    end
end

function count.next(tokens, returns_in)
    if tokens > limit then
        return -1
    elseif tokens <= count.left() then
        return 0
    end
    local wait = ends_in() * 1000
    return returns_in and math.min(returns_in, wait) or wait
end

function count.portion(wanted, replicas)
    local fair = floor(count.left() / replicas)
    return math.min(wanted, math.max(fair, 1), count.left())
end

function count.idle_in()
    return used > 0 and ends_in() or 0
end
