"""Where each fault is provoked: an index for readers, and a test that it points at what is there."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS: dict[int, tuple[str, list[str]]] = {
    1: (
        "driver killed (SIGKILL)",
        [
            "faults/test_kill.py::test_a_study_whose_driver_is_killed_ends_like_one_that_is_not",
            "faults/test_records.py::test_kill_9_loses_nothing_acknowledged",
            "test_ledger.py::test_rebuilt_from_records_proposes_the_same",
        ],
    ),
    2: (
        "killed before the first record",
        [
            "faults/test_kill.py::test_a_study_whose_driver_is_killed_ends_like_one_that_is_not",
            "test_store.py::test_missing_study_says_what_to_do",
        ],
    ),
    3: (
        "worker killed",
        [
            "proxy/test_trial_faults.py::test_killed_and_hung_workers_are_retried_from_their_checkpoint_with_the_same_losses",
            "proxy/test_trial.py::test_a_trial_whose_worker_goes_away_ends_with_the_same_rows",
        ],
    ),
    4: ("node killed", ["cluster/test_nodes.py::test_nodes_lost_drained_and_added_change_nothing_about_the_result"]),
    5: (
        "preemption notice",
        [
            "cluster/test_nodes.py::test_nodes_lost_drained_and_added_change_nothing_about_the_result",
            "proxy/test_trial.py::test_a_trial_whose_worker_goes_away_ends_with_the_same_rows",
        ],
    ),
    6: (
        "SIGINT, SIGTERM, SIGHUP",
        [
            "e2e/test_run.py::test_ctrl_c_leaves_a_study_that_the_printed_command_resumes",
            "e2e/test_run.py::test_a_driver_told_to_go_has_its_trials_saved_first",
            "faults/test_signals.py::test_the_first_signal_unwinds_and_the_second_kills",
            "faults/test_signals.py::test_a_terminal_that_closes_ends_a_command_like_any_signal",
        ],
    ),
    7: (
        "disk full, or read-only",
        [
            "faults/test_records.py::test_a_full_disk_is_named_and_nothing_is_lost",
            "proxy/test_trial_faults.py::test_where_nothing_can_be_recorded_nothing_is_trained_on",
            "faults/test_records.py::test_a_disk_that_fills_during_compaction_stops_nothing",
            "proxy/test_checkpoint.py::test_a_disk_too_full_for_a_checkpoint_is_named_and_ends_no_run",
            "faults/test_records.py::test_a_read_only_study_can_be_looked_at_and_says_why_it_cannot_be_run",
        ],
    ),
    8: (
        "Ray's object store over-full",
        ["faults/test_object_store.py::test_shards_larger_than_the_object_store_arrive"],
    ),
    9: (
        "record truncated, bits flipped",
        [
            "faults/test_records.py::test_every_truncation_of_every_file_is_seen",
            "faults/test_records.py::test_every_flipped_bit_is_seen",
            "faults/test_records.py::test_a_file_that_is_gone_is_never_a_new_study",
            "test_store.py::test_a_flipped_bit_anywhere_in_a_part_is_refused",
            "test_law_file.py::test_every_truncation_is_refused",
        ],
    ),
    10: (
        "checkpoint damaged",
        ["proxy/test_checkpoint.py::test_a_damaged_checkpoint_is_passed_over_for_its_predecessor"],
    ),
    11: (
        "token shard truncated, flipped, missing, shrunk while mapped",
        [
            "corpus/test_shards.py::test_truncated_shard_is_refused_with_both_sizes",
            "corpus/test_shards.py::test_flipped_bit_is_refused",
            "corpus/test_shards.py::test_missing_shard_and_missing_manifest_are_refused",
            "cluster/test_nodes.py::test_shards_reach_a_node_once_and_a_damaged_copy_is_refused",
            "proxy/test_trial_faults.py::test_a_shard_that_shrinks_under_a_trial_fails_it_and_not_the_driver",
        ],
    ),
    12: (
        "NaN, divergence, missing metric, an absurd loss",
        [
            "proxy/test_train.py::test_nan_is_divergence",
            "proxy/test_train.py::test_diverging_run_says_so",
            "test_search.py::test_foreign_tuner_ends_with_every_trial_a_row",
            "test_search.py::test_missing_metric_is_a_row_that_names_it",
            "test_ledger.py::test_a_loss_that_is_none_becomes_a_failed_row_with_its_reason",
            "test_store.py::test_not_a_number_never_reaches_a_record",
            "faults/test_numbers.py::test_one_loss_of_a_million_does_not_move_the_recommendation",
        ],
    ),
    13: (
        "all trials fail",
        [
            "e2e/test_run.py::test_a_study_in_which_every_trial_diverges_says_why",
            "report/test_report.py::test_all_trials_failed_gives_no_recommendation_but_a_page",
        ],
    ),
    14: ("domain with no tokens", ["corpus/test_prepare.py::test_empty_domain_is_named"]),
    15: (
        "share 0 or 1; 1, 2, 100 domains",
        [
            "faults/test_numbers.py::test_few_and_many_domains_and_pure_mixtures_are_searched",
            "laws/test_union.py::test_share_of_zero_contributes_exactly_nothing",
            "contract/test_designers.py::test_designer_keeps_the_contract_in_many_dimensions",
            "test_space.py::test_mistakes_are_named",
            "test_ask_tell.py::test_where_one_mixture_alone_is_allowed_nothing_is_begun",
        ],
    ),
    16: (
        "mixture that does not sum to 1, is negative or NaN",
        [
            "test_simplex.py::test_bad_mixtures_name_value_and_domain",
            "test_simplex.py::test_rounding_is_renormalised",
            "test_space.py::test_mixtures_are_checked_at_the_edge",
            "test_observations.py::test_bad_rows_are_named",
        ],
    ),
    17: (
        "duplicate domain or key",
        ["test_space.py::test_mistakes_are_named", "test_space.py::test_duplicate_keys_and_missing_files_are_errors"],
    ),
    18: (
        "hostile and odd names",
        [
            "security/test_untrusted.py::test_hostile_names_stay_names_in_every_file",
            "corpus/test_shards.py::test_file_names_never_collide",
            "corpus/test_prepare.py::test_odd_names_are_kept_verbatim_and_stay_inside",
            "report/test_report.py::test_hostile_page_in_a_browser_draws_and_runs_nothing",
        ],
    ),
    19: ("a domain called no, a value 1e-3", ["test_space.py::test_yaml_numbers_and_names_mean_what_they_say"]),
    20: (
        "eval text in the training text",
        ["corpus/test_prepare.py::test_overlap_of_an_eval_source_is_refused_with_count_and_example"],
    ),
    21: (
        "typo in a key",
        ["e2e/test_run.py::test_mistakes_exit_2_with_one_sentence", "test_space.py::test_mistakes_are_named"],
    ),
    22: (
        "two drivers on one study",
        [
            "test_ask_tell.py::test_workers_that_ask_and_tell_at_once_wait_for_each_other",
            "test_store.py::test_second_writer_is_told_who_holds_the_study",
            "faults/test_drivers.py::test_on_an_object_store_the_second_driver_is_refused_until_the_first_is_dead",
            "faults/test_drivers.py::test_whatever_drivers_do_at_once_acknowledged_records_are_kept_and_counted_once",
        ],
    ),
    23: (
        "space, data or recipe changed on resume",
        [
            "test_study.py::test_resume_refuses_another_space_and_names_the_difference",
            "test_study.py::test_a_fork_keeps_what_is_still_valid",
            "test_text.py::test_a_study_does_not_go_on_with_other_text",
        ],
    ),
    24: (
        "clock jumps",
        [
            "faults/test_clock.py::test_a_study_whose_clock_jumps_is_the_study_whose_clock_does_not",
            "faults/test_drivers.py::test_a_clock_that_jumps_takes_no_study_away",
        ],
    ),
    25: (
        "object store as storage, 503s, killed in mid-upload",
        [
            "faults/test_drivers.py::test_a_study_on_an_object_store_from_beginning_to_report",
            "faults/test_drivers.py::test_unavailable_for_a_while_is_waited_for_and_said_once",
            "faults/test_drivers.py::test_killed_in_mid_upload",
            "faults/test_drivers.py::test_credentials_that_expire_end_a_study_at_once_with_what_to_do",
            "faults/test_kill.py::test_a_study_on_s3_goes_on_from_another_machine",
            "faults/test_mirror.py::test_a_checkpoint_is_found_on_another_machine",
        ],
    ),
    26: (
        "a trial hangs",
        [
            "proxy/test_trial_faults.py::test_killed_and_hung_workers_are_retried_from_their_checkpoint_with_the_same_losses"
        ],
    ),
    27: (
        "a told row is none",
        [
            "test_study.py::test_rows_that_are_none_are_refused_and_nothing_is_recorded",
            "test_study.py::test_a_result_told_again_takes_the_place_of_the_first",
        ],
    ),
    28: (
        "a node does not see the study's disk, or lacks raymix",
        ["proxy/test_trial_faults.py::test_a_node_that_can_train_nothing_ends_the_study_with_a_remedy"],
    ),
    29: (
        "a cluster that cannot be joined, or never has what a trial takes",
        [
            "cluster/test_join.py::test_a_cluster_that_does_not_answer_is_no_full_disk",
            "cluster/test_nodes.py::test_what_is_waited_for_is_said",
        ],
    ),
    30: (
        "memory of a node or of a GPU is full",
        [
            "proxy/test_trial_faults.py::test_a_worker_that_rays_memory_monitor_kills_is_retried_and_the_others_train_on",
            "proxy/test_trial_faults.py::test_a_trial_that_does_not_fit_into_its_gpu_fails_at_once_and_one_that_shares_it_is_tried_again",
            "cluster/test_lost.py::test_memory_that_is_full_is_said_with_what_to_do",
        ],
    ),
    31: (
        "trials do not end within the hours of the budget",
        ["proxy/test_trial_faults.py::test_hours_that_are_over_end_a_study_whose_trials_do_not_end"],
    ),
    32: (
        "the head of the cluster is gone",
        ["cluster/test_head.py::test_a_head_that_is_gone_is_said_once_with_the_command_that_continues"],
    ),
}


def test_every_fault_is_in_the_table() -> None:
    assert list(FAULTS) == list(range(1, 33))


@pytest.mark.parametrize("row", FAULTS)
def test_every_fault_is_provoked_by_tests_that_exist(row: int) -> None:
    fault, tests = FAULTS[row]
    assert fault and tests
    for test in tests:
        file, _, name = test.partition("::")
        functions = [node for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)]
        assert name in [function.name for function in functions], test
