"""What could spoil the trust in a tracer's numbers, and the tests that show how FLAK meets it.

In the order of docs/limits.md, section "Hazards", which has a row for each; tests/unit/test_hazards.py compares the two
and looks whether the tests are there. A test is `folder/module::function`, without "test_".
"""

from __future__ import annotations

HAZARDS: dict[str, tuple[str, ...]] = {
    "uncounted ring loss": (
        "kernel/accounting::the_equations_hold_under_loss",
        "kernel/accounting::gaps_in_the_numbers_are_what_the_stream_says_was_lost",
        "kernel/folded::every_lost_access_is_in_a_sum",
        "kernel/accidents::two_tracers_of_one_flood_are_both_exact",
    ),
    "state that is evicted": ("kernel/accidents::three_thousand_blocked_threads_are_each_told",),
    "wrong path": (
        "kernel/hazards::hazard_03_a_path_that_changes_while_it_is_opened",
        "kernel/names::failed_opens_carry_errno_and_the_string_that_was_passed",
        "kernel/generated::programs_are_recorded_as_the_model_says",
    ),
    "empty path": ("kernel/original_faults::fault_8_paths_are_raw_relative_and_cut",),
    "bytes that bypass read and write": (
        "kernel/original_faults::fault_9_other_roads_are_passed_over_in_silence",
        "kernel/io_uring::requests_that_are_not_decoded_are_counted_by_opcode",
        "kernel/maps::populated_pages_do_not_fault_and_are_counted_as_not_decoded",
    ),
    "faults taken for touches": (
        "kernel/maps::pages_that_did_not_fault_lie_in_the_window_of_one_that_did",
        "kernel/maps::faults_on_large_folios_are_as_many_as_the_kernel_accounts",
        "unit/report::bounds_are_marked",
    ),
    "cgroups of version 1": (
        "kernel/cgroups::a_version_1_directory_is_refused_as_such",
        "unit/cgroups::a_version_1_cgroup_is_refused_by_its_controllers",
        "unit/containers::a_container_in_version_1_is_refused_with_what_to_do",
    ),
    "feedback": (
        "kernel/selection::all_processes_are_traced_but_flak",
        "kernel/selection::flak_s_own_calls_are_counted_without_durations_too",
        "kernel/cgroups::flak_is_left_out_of_its_own_cgroup",
    ),
    "names that forge output": (
        "kernel/hostile_names::live_text",
        "kernel/hostile_names::live_json",
        "unit/sinks::no_name_can_move_the_cursor_or_forge_a_line",
    ),
    "output written with root's rights": (
        "unit/cli::an_output_never_follows_a_link",
        "unit/cli::outputs_belong_to_the_invoking_user_and_need_that_users_rights",
        "unit/tracefile::a_new_file_is_private",
        "kernel/privileges::a_recording_is_made_with_the_rights_of_the_user",
    ),
    "foreign code loaded as root": (
        "kernel/hazards::hazard_11_root_loads_no_library_that_the_environment_names",
        "unit/safe_path::modules_of_the_current_folder_are_not_run",
        "unit/preflight::what_everybody_can_write_is_told",
    ),
    "attach race": (
        "kernel/attach::children_made_while_joining_are_seen_whole",
        "kernel/attach::steady_reads_of_four_generations_are_seen_without_a_gap",
        "kernel/selection::a_process_that_was_joined_in_a_storm_of_them_is_followed_by_all_that_come",
    ),
    "numbers of 32-bit calls": ("kernel/hazards::hazard_13_calls_through_the_32_bit_entry_are_counted_not_misread",),
    "exec by another thread": (
        "kernel/processes::an_exec_from_another_thread_keeps_the_process_traced",
        "kernel/processes::a_process_outlives_its_first_thread",
        "kernel/selection::an_exec_by_another_thread_changes_name_and_number",
    ),
    "calls that are restarted": (
        "kernel/unfinished::interrupted_reads_are_marked_and_not_counted_as_failed",
        "kernel/unfinished::a_restarted_read_is_seen_twice_and_completes_once",
    ),
    "process numbers that are used again": (
        "kernel/selection::a_number_that_was_given_to_another_process_is_not_traced_again",
        "kernel/selection::every_access_of_a_hundred_short_processes_is_seen_and_none_of_others",
        "kernel/accidents::a_storm_of_forks_is_seen_whole",
    ),
    "two identities on overlayfs": (
        "kernel/overlay::every_read_and_fault_has_the_name_in_the_overlay",
        "kernel/overlay::a_file_read_and_mapped_is_one_file",
    ),
    "process numbers of other namespaces": (
        "kernel/containers::in_a_pid_namespace_a_number_means_what_is_seen_there",
        "kernel/containers::a_process_number_is_the_hosts_and_its_own_stands_beside_it",
    ),
    "kill, crash, full disk": (
        "kernel/accidents::a_tracer_that_is_killed_leaves_no_program_loaded_and_a_valid_prefix",
        "kernel/accidents::a_recording_on_a_full_disk_holds_what_came_before_and_counts_the_rest",
        "unit/tracefile::a_writer_killed_at_any_moment_leaves_a_valid_prefix",
        "unit/tracefile::every_prefix_is_read_as_far_as_it_goes",
    ),
    "exit status and signals of the command": (
        "kernel/accidents::a_program_ends_as_it_does_without",
        "kernel/accidents::a_program_has_the_same_surroundings_as_without",
        "unit/target::interrupts_are_left_to_the_command_while_it_lives",
    ),
    "malicious recordings": (
        "unit/hostile_files::a_changed_recording_is_read_or_refused",
        "unit/hostile_files::a_small_file_takes_little_memory_and_time",
        "unit/tracefile::any_mutation_with_mended_checksums_is_read_or_refused",
    ),
    "hooks missing in silence": (
        "kernel/accidents::without_page_faults_the_rest_is_traced",
        "kernel/accidents::what_cannot_be_traced_is_told_before_the_command_runs",
        "kernel/hazards::hazard_22_skipped_programs_forbid_to_say_that_nothing_was_lost",
        "unit/doctor::hooks_that_see_nothing_are_a_failure_though_they_attach",
    ),
    "descriptors that change meanwhile": (
        "kernel/original_faults::fault_12_dup_close_and_stat_confuse_the_descriptors",
        "kernel/original_faults::fault_6_what_was_open_and_mapped_before_is_unknown",
        "kernel/io_uring::a_request_keeps_its_file_when_the_descriptor_is_closed_meanwhile",
        "kernel/descriptors::a_replaced_descriptor_names_its_new_file",
    ),
    "more rights than needed": (
        "kernel/privileges::root_keeps_what_only_reads_and_signals",
        "kernel/privileges::under_sudo_it_becomes_the_user",
        "kernel/doctor::two_capabilities_suffice",
    ),
    "clocks, order, names that change": (
        "kernel/original_faults::fault_11_the_clock_stops_while_the_machine_sleeps",
        "kernel/names::renaming_a_parent_folder_changes_the_name_from_then_on",
        "kernel/names::an_unlinked_file_keeps_the_name_it_had",
        "unit/wire::events_are_in_order_of_time_whatever_their_ring",
    ),
}
