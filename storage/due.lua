-- The alarms whose time has come, the earliest first; equal times by shard in the order given, then by name.
--
-- KEYS  for each shard its ":alarms" and its ":alarm-records"
-- ARGV  now; how many at most
--
-- Returns four elements for each alarm: number of the shard in KEYS from 0, name, time, version .. value.
local now, limit = ARGV[1], tonumber(ARGV[2])
local found = {}
for shard = 0, #KEYS / 2 - 1 do
    local times = redis.call('ZRANGEBYSCORE', KEYS[2 * shard + 1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
    for i = 1, #times, 2 do
        found[#found + 1] = {
            at = tonumber(times[i + 1]), text = times[i + 1], name = times[i], shard = shard, rank = #found,
        }
    end
end
table.sort(found, function(a, b)
    if a.at ~= b.at then
        return a.at < b.at
    end
    return a.rank < b.rank
end)
local answer = {}
for i = 1, math.min(limit, #found) do
    local alarm = found[i]
    local record = redis.call('HGET', KEYS[2 * alarm.shard + 2], alarm.name)
    if record then -- else somebody removed it by hand: nothing is left to deliver
        answer[#answer + 1] = alarm.shard
        answer[#answer + 1] = alarm.name
        answer[#answer + 1] = alarm.text
        answer[#answer + 1] = record
    end
end
return answer
