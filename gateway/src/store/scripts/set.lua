-- Sets what is used of the quota above: the rule of `policies::lease::Central::set_used`.
--
-- ARGV[1..2]: microseconds of a lease, tokens used. What replicas have on lease counts on top until it comes back.

local lease_time, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local OUT, AT, ENDS = 2, 3, 4

local state = load_state()
if state then
    count.load(state[1])
else
    count.new()
end
count.advance()

local kept, out = { 0 }, 0
for i = 2, state and #state or 1 do
    local lease = state[i]
    if lease[AT] > now then
        lease[AT], lease[ENDS] = now, now + lease_time
    end
    if now < lease[AT] + 2 * lease_time then
        kept[#kept + 1] = lease
        if lease[AT] >= since then
            out = out + lease[OUT]
        end
    end
end

local was = math.max(used - out, 0)
used = math.min(wanted + out, 9007199254740991)
kept[1] = count.stored()
store_state(kept, math.max(count.idle_in(), 2 * lease_time))
return { was, out, count.left() }
