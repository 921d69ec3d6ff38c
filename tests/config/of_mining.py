"""Options of `potstill mine`, `potstill gain` and rounds, and the tests that show their effect: file, function."""

_BY_FUNCTION = {
    "test_the_intent_that_training_lacks_is_found_named_and_taken_from_the_pool": (
        *("mine.run", "mine.output", "mine.pool", "mine.clusters", "mine.template", "mine.examples"),
        *("mine.per_prompt", "mine.held_back"),
    ),
    "test_a_random_pick_knows_nothing_of_what_failed": ("mine.pick",),
    "test_options_of_a_round_change_what_is_mined": ("mine.seed", "mine.encoder"),
    "test_a_test_item_in_the_pool_is_not_proposed_whatever_it_looks_like": ("mine.budget",),
    "test_a_failure_that_is_a_test_item_is_in_no_file": ("mine.test_manifest",),
    "test_a_round_gains_and_the_stop_rule_counts_what_is_left": (
        *("mine.total", "mine.splits", "mine.trust_teacher"),
        *("gain.run", "gain.before", "gain.mined", "gain.output", "gain.alpha", "gain.gone"),
    ),
    "test_what_a_teacher_wrote_goes_through_the_same_guard": ("mine.logger",),
    "test_a_gain_is_a_wandb_run_where_asked_for": ("gain.logger",),
    "test_a_loop_goes_round_until_a_gain_says_stop_and_is_taken_up_again": (
        *("recipe.recipe.rounds", "recipe.recipe.round", "recipe.recipe.last"),
    ),
}
OF_MINING = {name: ("mining/test_mine.py", function) for function, names in _BY_FUNCTION.items() for name in names}
