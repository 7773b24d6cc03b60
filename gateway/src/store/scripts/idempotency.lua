-- Decides on a request with an idempotency key, and keeps its record.
--
-- KEYS: the record, ends of the tenant's records, their sizes, ends of records that are not answered. ARGV: what to do,
-- the record's name, then the arguments of that. Times are microseconds, `keep` is milliseconds.
--
-- A record has a state (running, unknown, answered, not_kept), the token of its request, its fingerprint, the time until
-- which it may be running, and what an operator reads of it. The sizes have their sum under the name `=`.

local what, name = ARGV[1], ARGV[2]

local function text(number)
    return string.format('%.0f', number)
end

local function last_for(key, keep)
    if redis.call('PTTL', key) < keep then
        redis.call('PEXPIRE', key, keep)
    end
end

local function forget(other)
    local size = redis.call('HGET', KEYS[3], other)
    if size then
        redis.call('HDEL', KEYS[3], other)
        redis.call('HINCRBY', KEYS[3], '=', '-' .. size)
    end
    redis.call('ZREM', KEYS[2], other)
    redis.call('ZREM', KEYS[4], other)
end

local function key_of(other)
    return string.sub(KEYS[1], 1, #KEYS[1] - #name) .. other
end

local function state_of(state, till)
    if state == 'running' and tonumber(till) <= now then
        return 'unknown'
    end
    return state
end

-- Whether there is room for so many bytes of the tenant. Answered records make room if they may.
local function has_room(size, most, forgets)
    local function fits()
        return tonumber(redis.call('HGET', KEYS[3], '=') or '0') + size <= most
    end
    for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, 100)) do
        forget(ended)
    end
    if fits() then
        return true
    end
    if forgets then
        for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, 99)) do
            local state = redis.call('HGET', key_of(other), 'state')
            if state ~= 'running' and state ~= 'unknown' then
                redis.call('DEL', key_of(other))
                forget(other)
                if fits() then
                    return true
                end
            end
        end
    end
    return false
end

local function keep_record(keep, size, is_open)
    local ends = text(now + keep * 1000)
    redis.call('PEXPIRE', KEYS[1], keep)
    redis.call('ZADD', KEYS[2], ends, name)
    local before = redis.call('HGET', KEYS[3], name) or '0'
    redis.call('HSET', KEYS[3], name, text(size))
    redis.call('HINCRBY', KEYS[3], '=', text(size - tonumber(before)))
    if is_open then
        redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', text(now))
        redis.call('ZADD', KEYS[4], ends, name)
        last_for(KEYS[4], keep)
    else
        redis.call('ZREM', KEYS[4], name)
    end
    last_for(KEYS[2], keep)
    last_for(KEYS[3], keep)
end

local record = redis.call('HMGET', KEYS[1], 'state', 'token', 'fingerprint', 'until', 'status', 'subject')
local state = record[1] and state_of(record[1], record[4])

if what == 'begin' then
    local token, fingerprint, lease, keep, size, most, forgets, subject =
        ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1', ARGV[10]
    if state then
        if record[3] ~= fingerprint then
            return { 'reused' }
        end
        if record[1] == 'running' and record[2] == token then
            return { 'first' }
        end
        if state == 'answered' then
            return { state, redis.call('HGET', KEYS[1], 'answer') }
        end
        return { state, redis.call('PTTL', KEYS[1]), record[5] }
    end
    if not has_room(size, most, forgets) then
        local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
        return { 'full', next[2] and math.max(0, math.ceil((tonumber(next[2]) - now) / 1000)) or 0 }
    end
    redis.call('HSET', KEYS[1], 'state', 'running', 'token', token, 'fingerprint', fingerprint, 'until', text(now + lease),
        'subject', subject)
    keep_record(keep, size, true)
    return { 'first' }
end

if what == 'finish' then
    local token, fingerprint, ending, keep, size, more, most, forgets, subject, status, answer =
        ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]),
        ARGV[10] == '1', ARGV[11], ARGV[12], ARGV[13]
    if state and record[2] ~= token then
        return { 'stale' }
    end
    if ending == 'answered' then
        if has_room(more, most, forgets) then
            size = size + more
        else
            ending = 'not_kept'
        end
    end
    redis.call('HSET', KEYS[1], 'state', ending, 'token', token, 'fingerprint', fingerprint, 'subject', subject,
        'status', status)
    if ending == 'answered' then
        redis.call('HSET', KEYS[1], 'answer', answer)
    end
    keep_record(keep, size, ending == 'unknown')
    return { ending }
end

if what == 'release' then
    if record[1] == 'running' and record[2] == ARGV[3] then
        redis.call('DEL', KEYS[1])
        forget(name)
    end
    return { 'released' }
end

if what == 'free' then
    if state and state ~= 'running' then
        redis.call('DEL', KEYS[1])
        forget(name)
        return { 'freed', state }
    end
    return { state or 'none' }
end

if what == 'find' then
    return state and { state, redis.call('PTTL', KEYS[1]), record[6] } or { 'none' }
end

-- Lists records that are not answered, the next to end first.
local listed = {}
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. text(now), '+inf', 'LIMIT', 0, ARGV[3])) do
    local found = redis.call('HMGET', key_of(other), 'state', 'until', 'subject')
    if found[1] then
        listed[#listed + 1] = { other, state_of(found[1], found[2]), redis.call('PTTL', key_of(other)), found[3] }
    else
        redis.call('ZREM', KEYS[4], other)
    end
end
return listed
