-- Applies changes in their order; each whole, if every version in it is still the expected one, else not at all.
--
-- KEYS  in the order of their use: for each put the record's name;
--       for each alarm its shard's ":alarms" (name by time) and ":alarm-records" (version .. value by name)
-- ARGV  for each change: how many puts, how many alarms;
--       for each put: expected version, version .. value (empty: delete), time of sweeping (empty: none);
--       for each alarm: name, time (empty: remove), version .. value
--
-- Returns the numbers of the changes that were not applied, from 0.
--
-- All versions of a change are compared before the first of its writes, since Lua's errors do not roll back.
local key, arg, change = 1, 1, 0
local stale = {}
while ARGV[arg] do
    local puts, alarms = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
    arg = arg + 2
    local fresh = true
    for i = 0, puts - 1 do
        if redis.call('GETRANGE', KEYS[key + i], 0, 15) ~= ARGV[arg + 3 * i] then
            fresh = false
            break
        end
    end
    if not fresh then
        stale[#stale + 1] = change
        key = key + puts + 2 * alarms
        arg = arg + 3 * puts + 3 * alarms
    else
        for _ = 1, puts do
            local name, record, sweep = KEYS[key], ARGV[arg + 1], ARGV[arg + 2]
            if record == '' then
                redis.call('DEL', name)
            elseif sweep == '' then
                redis.call('SET', name, record)
            else
                redis.call('SET', name, record, 'EXAT', sweep)
            end
            key = key + 1
            arg = arg + 3
        end
        for _ = 1, alarms do
            local name, at = ARGV[arg], ARGV[arg + 1]
            if at == '' then
                redis.call('ZREM', KEYS[key], name)
                redis.call('HDEL', KEYS[key + 1], name)
            else
                redis.call('ZADD', KEYS[key], at, name)
                redis.call('HSET', KEYS[key + 1], name, ARGV[arg + 2])
            end
            key = key + 2
            arg = arg + 3
        end
    end
    change = change + 1
end
return stale
