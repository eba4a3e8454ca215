"""Instance groups: kinds, GPUs, counts, rate limits, policies."""

from corpus import Case, configs


def cases() -> list[Case]:
    return configs("instances", {name: f"instance_group [ {text} ]" for name, text in TABLE.items()} | AFTER)


TABLE = {
    "cpu": "{ kind: KIND_CPU }",
    "empty": "{ }",
    "count": "{ count: 2 }",
    "count_zero": "{ count: 0 }",
    "count_negative": "{ count: -1 }",
    "count_many": "{ count: 64 kind: KIND_CPU }",
    "auto": "{ kind: KIND_AUTO }",
    "auto_gpus": "{ kind: KIND_AUTO gpus: [ 0 ] }",
    "gpus_only": "{ gpus: [ 0 ] }",
    "gpu": "{ kind: KIND_GPU }",
    "gpu_listed": "{ kind: KIND_GPU gpus: [ 0 ] }",
    "gpu_negative": "{ kind: KIND_GPU gpus: [ -1 ] }",
    "gpu_count_zero": "{ kind: KIND_GPU count: 0 }",
    "cpu_gpus": "{ kind: KIND_CPU gpus: [ 0 ] }",
    "cpu_gpus_empty": "{ kind: KIND_CPU gpus: [ ] }",
    "model": "{ kind: KIND_MODEL }",
    "model_gpus": "{ kind: KIND_MODEL gpus: [ 0 ] }",
    "kind_unknown": "{ kind: KIND_TPU }",
    "two": "{ kind: KIND_CPU }, { kind: KIND_CPU count: 2 }",
    "one_bad_of_two": "{ kind: KIND_CPU }, { kind: KIND_GPU }",
    "named": '{ name: "a" kind: KIND_CPU }',
    "same_names": '{ name: "a" kind: KIND_CPU }, { name: "a" kind: KIND_CPU }',
    "profile": '{ kind: KIND_CPU profile: "0" }',
    "profile_auto": '{ profile: [ "0", "1" ] }',
    "profile_empty": '{ kind: KIND_CPU profile: "" }',
    "host_policy": '{ kind: KIND_CPU host_policy: "numa0" }',
    "passive": "{ kind: KIND_CPU passive: true }",
    "passive_and_active": "{ kind: KIND_CPU passive: true }, { kind: KIND_CPU }",
    "secondary": "{ kind: KIND_CPU secondary_devices [ { kind: KIND_NVDLA device_id: 0 } ] }",
    "secondary_two": "{ kind: KIND_CPU secondary_devices [ { device_id: 0 }, { device_id: 1 } ] }",
    "secondary_id": "{ kind: KIND_CPU secondary_devices [ { device_id: 100 } ] }",
    "rate": '{ kind: KIND_CPU rate_limiter { resources [ { name: "r" count: 4 } ] priority: 2 } }',
    "rate_global": '{ kind: KIND_CPU rate_limiter { resources [ { name: "r" global: true count: 4 } ] } }',
    "rate_empty": "{ kind: KIND_CPU rate_limiter { } }",
    "rate_no_name": "{ kind: KIND_CPU rate_limiter { resources [ { count: 4 } ] } }",
    "rate_no_count": '{ kind: KIND_CPU rate_limiter { resources [ { name: "r" } ] } }',
    "rate_count_negative": '{ kind: KIND_CPU rate_limiter { resources [ { name: "r" count: -1 } ] } }',
    "rate_twice": '{ kind: KIND_CPU rate_limiter { resources [ { name: "r" count: 4 }, { name: "r" count: 2 } ] } }',
    "rate_global_and_local":
        '{ kind: KIND_CPU rate_limiter { resources [ { name: "r" count: 4 }, { name: "r" global: true count: 2 } ] } }',
    "rate_priority_negative": "{ kind: KIND_CPU rate_limiter { priority: -1 } }",
}  # fmt: skip
AFTER = {
    "none": "",
    "count_over_limit": "instance_group { count: 1000 kind: KIND_CPU }",
}
