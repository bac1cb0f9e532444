-- reliability_score = success_rate * (1 - human_override_rate) * (1 - tool_error_rate), over the runs whose outcome is known.
with runs as (

    select * from stg_counted_runs

),

totals as (

    select
        workflow,
        iso_week,
        basis,
        bool_or(simulated) as simulated,
        count(success) as n,
        count(*) - count(success) as unlabelled,
        count(*) filter (where success) as successes,
        count(*) filter (where success is not null and human_override) as human_overrides,
        cast(coalesce(sum(tool_calls_count) filter (where success is not null), 0) as bigint) as tool_calls,
        count(*) filter (where success is not null and tool_error_count is null) as tool_errors_unknown,
        -- A sum is unknown when nothing says of some call whether it failed.
        case
            when count(success) = count(tool_error_count) filter (where success is not null)
                then cast(coalesce(sum(tool_error_count) filter (where success is not null), 0) as bigint)
        end as tool_errors,
        -- A sum with an unknown cost in it is unknown.
        case
            when count(success) = count(cost) filter (where success is not null)
                then sum(cost) filter (where success is not null)
        end as cost
    from runs
    group by workflow, iso_week, basis

),

rates as (

    select
        *,
        successes / nullif(n, 0) as success_rate,
        human_overrides / nullif(n, 0) as human_override_rate,
        -- Runs that called no tool made no tool error.
        case when n > 0 and tool_errors is not null then coalesce(tool_errors / nullif(tool_calls, 0), 0) end
            as tool_error_rate
    from totals

)

select
    *,
    success_rate * (1 - human_override_rate) * (1 - tool_error_rate) as reliability_score,
    cost / nullif(successes, 0) as cost_per_success
from rates
order by workflow, iso_week
