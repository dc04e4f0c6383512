//! What every store must do, whatever its engine: each test takes a fresh store from a factory.
//!
//! An engine is held to it by one line, [`conforms_to_the_port`] with its factory; what only makes sense for one
//! engine (a file that is killed, a disk that is full) is tested beside that engine.

pub(crate) mod support;

pub(crate) mod life;

pub(crate) mod guards;

pub(crate) mod scope;

pub(crate) mod jobs;

pub(crate) mod budgets;

pub(crate) mod feed;

pub(crate) mod reads;

pub(crate) mod audit;

pub(crate) mod processes;

pub(crate) mod sealed;

/// Makes a test of each named function for the stores that `$factory` makes.
macro_rules! conforms_to_the_port {
    ($factory:expr) => {
        $crate::store::conformance::conforms_to_the_port!($factory;
            life::a_domain_lives_from_registration_to_a_served_certificate,
            life::everything_is_there_after_a_restart,
            life::a_certificate_is_found_by_its_serial_number_within_the_callers_reach,
            life::the_domains_of_a_certificate_are_those_that_point_to_it,
            life::two_who_learn_of_a_domain_at_once_are_both_remembered,
            life::what_is_learnt_stays_and_a_names_certificates_are_found_newest_first,
            guards::a_refused_batch_leaves_nothing_behind,
            guards::batches_committed_together_fail_alone,
            guards::every_guard_tells_true_from_false,
            guards::a_batch_applied_again_changes_nothing_more,
            guards::a_suspended_domain_stays_so_when_its_renewal_ends,
            guards::a_removed_domain_takes_its_job_and_challenges_along,
            guards::a_deadline_that_has_passed_is_a_timeout_and_nothing_hangs,
            scope::a_tenants_scope_changes_nothing_of_another,
            scope::a_tenants_scope_changes_nothing_of_the_platform,
            scope::a_tenants_scope_reads_nothing_of_another,
            scope::a_name_changes_owner_only_by_being_given_up,
            jobs::a_job_has_one_holder_however_many_ask,
            jobs::a_late_holder_may_publish_until_somebody_else_has_claimed,
            jobs::a_lengthened_lease_keeps_others_away,
            jobs::the_most_urgent_job_comes_first_and_the_next_one_is_told,
            jobs::a_request_brings_a_waiting_job_forward_and_never_back,
            jobs::a_failed_job_heeds_its_back_off_unless_the_operator_wants_it_now,
            jobs::an_interrupted_run_counts_for_nothing,
            jobs::a_held_job_counts_nothing_and_only_a_more_urgent_request_brings_it_forward,
            jobs::a_successor_finds_the_order_that_a_dead_holder_saved,
            jobs::what_a_dead_holder_held_is_due_at_once_and_nothing_else,
            jobs::jobs_that_wait_are_counted_with_the_longest_wait,
            jobs::tenants_with_due_jobs_take_turns,
            jobs::a_priority_is_claimed_at_its_pace,
            jobs::upkeep_has_one_row_a_task,
            jobs::a_certificate_has_a_job_of_its_own_beside_its_domains,
            jobs::a_change_of_state_does_not_disturb_a_run,
            jobs::jobs_of_many_names_are_all_claimed_in_the_end,
            budgets::a_bucket_gives_exactly_what_it_holds,
            budgets::all_buckets_give_or_none,
            budgets::a_frozen_bucket_gives_nothing_even_after_a_restart,
            budgets::a_clock_that_was_ahead_keeps_no_bucket_empty_or_stopped,
            budgets::what_was_spent_elsewhere_is_charged_and_can_be_given_back,
            budgets::a_cost_of_nothing_is_refused_where_too_little_is_left,
            budgets::buckets_in_use_are_listed_by_prefix_page_by_page,
            feed::eight_writers_lose_and_disorder_nothing_for_a_reader,
            feed::a_position_after_a_batch_includes_it,
            feed::a_reader_without_a_place_is_told_to_take_a_fresh_copy,
            feed::a_commit_wakes_those_who_wait,
            reads::a_name_resolves_exactly_and_then_by_its_wildcard,
            reads::a_challenge_is_seen_by_another_opening_as_soon_as_it_is_committed,
            reads::pages_are_whole_and_stable_while_others_write,
            reads::every_list_pages_in_the_order_of_its_key,
            sealed::a_blob_sealed_anew_takes_the_place_of_the_one_that_was_read,
            sealed::an_older_data_key_stays_while_something_may_need_it,
            audit::events_form_one_chain_an_owner_without_gaps,
        );
        #[tokio::test]
        async fn the_other_process() {
            $crate::store::conformance::processes::the_other_process(&$factory).await;
        }
        $crate::store::conformance::conforms_to_the_port!($factory, concat!(module_path!(), "::the_other_process");
            two_processes_never_claim_the_same_job,
            two_processes_share_a_budget_exactly,
            a_reader_sees_the_writes_of_two_processes_in_order,
            what_a_killed_process_acknowledged_is_there,
        );
    };
    ($factory:expr, $other:expr; $($test:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::store::conformance::processes::$test(&$factory, $other).await;
            }
        )*
    };
    ($factory:expr; $($module:ident :: $test:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::store::conformance::$module::$test(&$factory).await;
            }
        )*
    };
}

pub(crate) use conforms_to_the_port;
