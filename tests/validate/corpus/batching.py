"""The dynamic batcher: preferred sizes, priorities, queue policies; response cache."""

from corpus import PLAIN, Case, configs, whole


def cases() -> list[Case]:
    found = configs("batching", {name: f"dynamic_batching {{ {text} }}" for name, text in TABLE.items()})
    small = {
        f"{name}_batch_{size}": PLAIN.replace("8", str(size)) + f"dynamic_batching {{ {TABLE[name]} }}"
        for size in (0, 1) for name in ("empty", "preferred", "preferred_one", "delay", "levels")
    }  # fmt: skip
    return [*found, *whole("batching", small), *configs("batching", CACHE)]


TABLE = {
    "empty": "",
    "preferred": "preferred_batch_size: [ 4, 8 ]",
    "preferred_one": "preferred_batch_size: [ 1 ]",
    "preferred_unsorted": "preferred_batch_size: [ 8, 2, 4 ]",
    "preferred_twice": "preferred_batch_size: [ 4, 4 ]",
    "preferred_zero": "preferred_batch_size: [ 0 ]",
    "preferred_negative": "preferred_batch_size: [ -4 ]",
    "preferred_above": "preferred_batch_size: [ 4, 16 ]",
    "preferred_empty": "preferred_batch_size: [ ]",
    "delay": "max_queue_delay_microseconds: 100",
    "delay_huge": "max_queue_delay_microseconds: 18446744073709551615",
    "preserve": "preserve_ordering: true",
    "levels": "priority_levels: 3 default_priority_level: 2",
    "levels_no_default": "priority_levels: 3",
    "levels_default_zero": "priority_levels: 3 default_priority_level: 0",
    "levels_default_above": "priority_levels: 3 default_priority_level: 4",
    "levels_default_last": "priority_levels: 3 default_priority_level: 3",
    "levels_one": "priority_levels: 1 default_priority_level: 1",
    "levels_zero_default": "priority_levels: 0 default_priority_level: 2",
    "default_only": "default_priority_level: 2",
    "levels_many": "priority_levels: 100000 default_priority_level: 1",
    "levels_preserve": "priority_levels: 2 default_priority_level: 1 preserve_ordering: true",
    "level_one_preserve": "priority_levels: 1 default_priority_level: 1 preserve_ordering: true",
    "policy": "default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 10 max_queue_size: 4 }",
    "policy_delay": "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 10 }",
    "policy_override": "default_queue_policy { allow_timeout_override: true }",
    "policy_preserve_delay":
        "preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 10 }",
    "policy_preserve_delay_no_timeout": "preserve_ordering: true default_queue_policy { timeout_action: DELAY }",
    "policy_preserve_delay_override":
        "preserve_ordering: true default_queue_policy { timeout_action: DELAY allow_timeout_override: true }",
    "policy_preserve_reject":
        "preserve_ordering: true default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 10 }",
    "policy_unknown": "default_queue_policy { timeout_action: DROP }",
    "level_policy":
        "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 2 value { max_queue_size: 3 } }",
    "level_policy_zero":
        "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 0 value { max_queue_size: 3 } }",
    "level_policy_above":
        "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { max_queue_size: 3 } }",
    "level_policy_no_levels": "priority_queue_policy { key: 3 value { max_queue_size: 3 } }",
    "level_policy_preserve_delay":
        "preserve_ordering: true priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: 1 value { "
        "timeout_action: DELAY default_timeout_microseconds: 5 } }",
    "level_policy_preserve_delay_no_levels":
        "preserve_ordering: true priority_queue_policy { key: 1 value { "
        "timeout_action: DELAY default_timeout_microseconds: 5 } }",
    "level_policy_string_key": 'priority_queue_policy { key: "1" value { } }',
    "queue_size_negative": "default_queue_policy { max_queue_size: -1 }",
}  # fmt: skip
CACHE = {
    "cache": "response_cache { enable: true }",
    "cache_off": "response_cache { enable: false }",
    "cache_dynamic": "response_cache { enable: true }\ndynamic_batching { }",
    "cache_sequence": "response_cache { enable: true }\nsequence_batching { }",
    "cache_off_sequence": "response_cache { enable: false }\nsequence_batching { }",
    "cache_decoupled": "response_cache { enable: true }\nmodel_transaction_policy { decoupled: true }",
    "cache_not_decoupled": "response_cache { enable: true }\nmodel_transaction_policy { decoupled: false }",
    "decoupled": "model_transaction_policy { decoupled: true }",
    "decoupled_dynamic": "model_transaction_policy { decoupled: true }\ndynamic_batching { }",
    "decoupled_preserve": "model_transaction_policy { decoupled: true }\ndynamic_batching { preserve_ordering: true }",
    "decoupled_sequence": "model_transaction_policy { decoupled: true }\nsequence_batching { }",
}
