"""Which test shows which case of the wire's conformance list, and which one reaches which reason.

Test ids are `folder/file.py::function`, below tests/. A case that no test shows says what it waits for.
"""

WIRE = "rpc/test_wire.py::"
BAD_WIRE = "catalogue/test_bad_wire.py::"
METADATA = "catalogue/test_bad_metadata.py::"
IDS = "catalogue/test_bad_ids.py::"
RUNS = "catalogue/test_bad_runs.py::"
MESSAGES = "catalogue/test_bad_messages.py::"
CONNECTIONS = "catalogue/test_connections.py::"
FAILURES = "rpc/test_failures.py::"
ORDER = "rpc/test_order_of_checks.py::"
MODEL = "e2e/test_model_failures.py::test_each_failure_has_its_reason"
OVERLOAD = "rpc/test_overload.py::test_calls_that_queue_while_the_loop_is_held_up_can_be_retried_and_none_is_cancelled"
TOOL_SERVICE = "e2e/test_tool_service.py::"
LOOP_AGENT = "unit/agents/test_tool_loop_agent.py::"

CASES: dict[int, tuple[str, ...]] = {
    1: (f"{WIRE}test_an_ordinary_call_is_answered",),
    2: (f"{BAD_WIRE}test_a_path_that_leads_nowhere_is_unimplemented",),
    3: (f"{BAD_WIRE}test_a_get_and_a_call_without_te_are_reset",),
    4: (f"{WIRE}test_a_call_without_a_whole_message_is_malformed",),
    5: (f"{WIRE}test_a_call_without_a_whole_message_is_malformed",),
    6: (
        f"{WIRE}test_a_message_that_does_not_come_is_not_waited_for",
        f"{WIRE}test_the_callers_own_deadline_ends_a_call",
    ),
    7: (f"{WIRE}test_a_call_that_is_not_half_closed_is_served",),
    8: (
        f"{FAILURES}test_the_callers_own_deadline_is_his_affair",
        f"{BAD_WIRE}test_a_deadline_that_has_passed_ends_the_call",
        f"{BAD_WIRE}test_a_timeout_that_is_none_is_internal",
    ),
    9: (
        f"{WIRE}test_a_message_too_large_is_refused_by_its_prefix",
        "rpc/test_server_options.py::test_a_message_has_at_most_4_mib_in_both_directions",
    ),
    10: (
        f"{BAD_WIRE}test_a_message_that_unpacks_to_too_much_is_refused",
        f"{BAD_WIRE}test_compression_that_cannot_be_undone_is_internal",
    ),
    11: (
        f"{MESSAGES}test_bytes_that_are_no_message_are_refused_without_the_parsers_words",
        f"{MESSAGES}test_fields_that_are_not_known_are_ignored_and_not_stored",
    ),
    12: (
        f"{BAD_WIRE}test_calls_that_are_given_up_leave_nothing_behind",
        f"{FAILURES}test_a_stream_is_closed_in_its_own_task_when_the_client_goes",
        "e2e/test_runs.py::test_ending_the_watch_does_not_end_the_run",
    ),
    13: (f"{FAILURES}test_a_reader_who_takes_nothing_is_let_go",),
    14: ("rpc/test_health.py::test_a_watcher_who_does_not_read_holds_up_nobody",),
    15: (f"{WIRE}test_metadata_over_the_limit_is_refused_also_before_the_client_knows_it",),
    16: (
        f"{METADATA}test_what_may_come_once_and_comes_twice_is_refused",
        f"{METADATA}test_a_context_out_of_bounds_is_refused",
        f"{METADATA}test_a_time_that_is_off_is_refused_and_none_is_the_servers",
        f"{METADATA}test_keys_that_nobody_knows_are_ignored",
        f"{BAD_WIRE}test_names_in_upper_case_and_bad_base64_are_internal",
    ),
    17: (f"{ORDER}test_the_request_id_is_echoed", f"{METADATA}test_a_request_id_is_given_back_by_errors_too"),
    18: ("e2e/test_runs.py::test_a_turn_streams_calls_a_tool_and_ends",),
    19: ("rpc/test_call_ends.py::test_each_end_is_itself_in_metrics_and_log",),
    20: (f"{CONNECTIONS}test_the_stream_of_a_client_that_vanished_is_ended",),
    21: (f"{RUNS}test_every_other_cursor_gives_the_rest", f"{RUNS}test_a_cursor_beyond_the_end_is_refused"),
    22: (f"{CONNECTIONS}test_a_watcher_who_does_not_read_holds_up_no_other",),
    23: (
        "e2e/test_restart.py::test_a_stop_ends_streams_at_an_event_boundary_and_parks_the_runs",
        "rpc/test_drain.py::test_a_stream_ends_after_a_whole_event_and_says_when_to_come_back",
    ),
    24: ("e2e/test_signals.py::test_the_second_stop_waits_for_nothing",),
    25: ("rpc/test_server_option_times.py::test_no_unary_call_notices_the_age_of_connections",),
    26: ("unit/client/test_client_reattach.py::test_leaving_the_context_ends_the_call_and_not_the_run",),
    27: ("catalogue/test_many_calls.py::test_a_thousand_idle_streams_are_small",),
    28: ("e2e/test_many_streams.py::test_a_thousand_streams_are_all_whole_and_none_has_more_messages_than_words",),
    29: (OVERLOAD,),
    30: (
        "catalogue/test_many_calls.py::test_five_thousand_calls_leave_nothing_behind",
        "catalogue/test_many_calls.py::test_a_hundred_thousand_calls_leave_nothing_behind",
    ),
    31: (
        f"{BAD_WIRE}test_connections_that_come_and_go_leave_no_file_open",
        f"{BAD_WIRE}test_ten_thousand_connections_leave_no_file_open",
    ),
    32: (
        "catalogue/test_index.py::test_every_reason_is_reached_by_a_test",
        f"{FAILURES}test_words_without_measure_are_cut_to_what_every_client_takes",
    ),
    33: (
        f"{IDS}test_a_request_id_stands_for_one_request",
        f"{IDS}test_one_request_sent_by_many_at_once_is_done_once",
        f"{IDS}test_a_request_id_is_remembered_over_a_crash",
    ),
    34: (f"{IDS}test_a_page_token_that_was_changed_is_none", f"{IDS}test_a_page_token_is_good_for_its_list_alone"),
    35: (
        "rpc/test_health.py::test_a_service_that_is_not_there",
        "rpc/test_health.py::test_nothing_serves_before_the_server_is_said_to",
        "rpc/test_overload.py::test_health_is_answered_while_calls_are_shed",
    ),
    36: (
        "rpc/test_reflection.py::test_services_are_listed",
        "rpc/test_reflection.py::test_without_the_setting_there_is_none",
    ),
    37: (f"{BAD_WIRE}test_a_path_that_leads_nowhere_is_unimplemented",),
    38: ("rpc/test_tls.py::test_who_gets_through_the_handshake",),
    39: (
        "rpc/test_tls_reload.py::test_new_handshakes_see_the_new_certificate_and_old_connections_live_on",
        "rpc/test_tls_reload.py::test_what_is_not_in_order_keeps_the_old_one_and_is_told_once",
    ),
    40: ("rpc/test_tls.py::test_the_protocols",),
    41: ("clients/test_conformance.py::test_the_asyncio_stubs", "clients/test_conformance.py::test_grpc_js"),
}

REASONS: dict[str, str] = {
    "INVALID_REQUEST": f"{MESSAGES}test_a_message_that_breaks_a_rule_is_refused_by_the_field",
    "UNKNOWN_MODEL": "e2e/test_models.py::test_a_model_that_may_not_be_named_is_refused_before_anything_is_accepted",
    "MALFORMED_MESSAGE": f"{MESSAGES}test_bytes_that_are_no_message_are_refused_without_the_parsers_words",
    "CONTEXT_INVALID": f"{METADATA}test_a_context_out_of_bounds_is_refused",
    "CLOCK_SKEW": f"{METADATA}test_a_time_that_is_off_is_refused_and_none_is_the_servers",
    "METADATA_TOO_LARGE": f"{ORDER}test_each_check_comes_before_the_next",
    "MESSAGE_TIMEOUT": f"{WIRE}test_a_message_that_does_not_come_is_not_waited_for",
    "CALL_TIMEOUT": f"{FAILURES}test_a_caller_without_a_deadline_is_given_one",
    "CREDENTIALS_INVALID": f"{METADATA}test_a_bad_credential_is_told_like_any_other",
    "AUTH_UNAVAILABLE": f"{ORDER}test_a_store_that_fails_lets_nobody_in",
    "AUTH_RATE_LIMITED": "rpc/test_credentials.py::test_who_guesses_too_often_is_looked_at_no_more_for_a_while",
    "USER_MISMATCH": f"{METADATA}test_somebody_elses_name_is_refused_with_a_good_credential",
    "SCOPE_MISSING": f"{ORDER}test_a_missing_scope_is_named",
    "PRINCIPAL_NOT_ALLOWED": "rpc/test_access_rules.py::test_every_kind_of_caller_gets_what_the_rule_says",
    "RESOURCE_NOT_FOUND": f"{IDS}test_an_id_of_nothing_is_not_found",
    "CURSOR_AHEAD": f"{RUNS}test_a_cursor_beyond_the_end_is_refused",
    "SLOW_CONSUMER": f"{FAILURES}test_a_slow_reader_is_told_why_the_stream_ended",
    "REQUEST_ID_REUSED": f"{IDS}test_a_request_id_stands_for_one_request",
    "QUOTA_EXCEEDED": "catalogue/test_quotas.py::test_a_run_too_many_is_refused_in_exactly_these_bytes",
    "BUDGET_EXCEEDED": "catalogue/test_quotas.py::test_a_budget_that_is_used_up_refuses_runs_until_the_day_ends",
    "QUEUE_FULL": f"{RUNS}test_a_busy_conversation_takes_four_more_and_is_not_deleted",
    "CONVERSATION_BUSY": f"{RUNS}test_a_busy_conversation_takes_four_more_and_is_not_deleted",
    "FEATURE_NOT_AVAILABLE": f"{MESSAGES}test_what_is_not_built_is_refused_and_not_passed_over",
    "METHOD_NOT_IMPLEMENTED": f"{FAILURES}test_a_method_that_is_not_built_says_so_by_the_name_of_its_feature",
    "PAGE_TOKEN_INVALID": f"{IDS}test_a_page_token_that_was_changed_is_none",
    "ETAG_MISMATCH": f"{IDS}test_what_was_changed_meanwhile_is_not_overwritten",
    "SERVER_DRAINING": "rpc/test_server.py::test_a_call_that_comes_while_the_server_drains_is_told_to_try_again",
    "SERVER_OVERLOADED": OVERLOAD,
    "SERVER_RESTARTED": "e2e/test_restart.py::test_after_a_kill_the_run_goes_on_by_itself_and_what_was_seen_stands",
    "STORAGE_UNAVAILABLE": "e2e/test_store_trouble.py::test_a_cancel_that_could_not_be_stored_can_be_asked_again",
    "STORAGE_FULL": "faults/test_full_disk.py::test_a_full_disk_refuses_writes_until_there_is_room",
    "INTERNAL_ERROR": f"{FAILURES}test_an_unknown_error_is_internal_and_keeps_its_text_to_itself",
    "RUN_NOT_STEERABLE": f"{RUNS}test_words_for_a_run_are_refused_when_they_are_too_many_or_too_late",
    "ATTEMPTS_EXHAUSTED": "contract/recovery/test_cut_runs.py::test_attempts_that_complete_nothing_are_counted",
    "OUTPUT_INVALID": "e2e/test_structured_output.py::test_an_answer_that_is_not_mended_fails_the_run_and_stays",
    "AGENT_FAILED": "catalogue/test_agent_faults.py::test_an_agents_fault_ends_its_run_and_keeps_its_text_to_itself",
    "MODEL_STREAM_INCOMPLETE": MODEL,
    "MODEL_RESPONSE_INVALID": MODEL,
    "MODEL_UNAVAILABLE": MODEL,
    "MODEL_TIMEOUT": MODEL,
    "MODEL_AUTHENTICATION_FAILED": MODEL,
    "MODEL_RATE_LIMITED": MODEL,
    "MODEL_REQUEST_REJECTED": MODEL,
    "MODEL_CONTEXT_TOO_LONG": "unit/llm/test_openai_service_failures.py::test_statuses",
    "STEP_LIMIT_REACHED": "e2e/test_runs.py::test_a_step_limit_fails_the_run_with_its_reason",
    "APPROVAL_DECIDED": "rpc/test_approval_service.py::test_it_is_answered_once",
    "APPROVAL_EXPIRED": "contract/recovery/test_approvals.py::test_what_nobody_answers_expires",
    "APPROVAL_CANCELLED": "rpc/test_approval_service.py::test_after_the_runs_end_it_is_too_late",
    "APPROVAL_NEEDED": "contract/recovery/test_approvals.py::test_a_run_that_does_not_wait",
    "TOOL_CHANGED": "unit/client/test_tool_host.py::test_a_refusal_has_its_reason",
    "TOOL_CALL_RESOLVED": f"{TOOL_SERVICE}test_what_is_settled_or_never_was_in_doubt_is_not_settled_again",
    "TOOL_CALL_NOT_IN_DOUBT": f"{TOOL_SERVICE}test_what_is_settled_or_never_was_in_doubt_is_not_settled_again",
    "DELEGATION_DISABLED": "e2e/test_delegation_disabled.py::test_a_server_that_takes_no_tokens_makes_none_for_itself",
    "DELEGATION_TOO_DEEP": "rpc/test_delegation_service.py::test_four_act_for_a_user_and_no_fifth",
    "ACCOUNT_ERASING": "rpc/test_account_service.py::test_while_a_user_is_erased_nothing_else_can_be_asked_for_him",
    "LOOP_DETECTED": "rpc/test_ends.py::test_a_run_ends_by_itself",
    "TOOL_CALL_LIMIT_REACHED": f"{LOOP_AGENT}test_calls_beyond_the_runs_limit_are_told_and_not_run",
    "OUTPUT_TOKEN_LIMIT_REACHED": f"{LOOP_AGENT}test_a_run_out_of_tokens_fails_and_runs_nothing_more",
}
