"""Options of `potstill audit` and of its repair, and the tests that show their effect: file, function."""

_BY_FUNCTION = {
    "test_a_domain_without_training_data_is_named_first": ("data", "output"),
    "test_thresholds_decide_what_is_found": ("jaccard", "ngram"),
    "test_a_production_sample_takes_the_place_of_the_test_split": ("production",),
    "test_a_tenth_of_a_teachers_labels_flipped_in_one_slice_is_named": ("teacher_label",),
    "test_a_runs_models_are_told_apart_on_clean_and_dirty_items": ("run", "encoder", "logger"),
}
OF_AUDITS = {
    "data.drop_copies": ("data/test_copies.py", "test_the_repair_drops_from_train_and_never_from_test"),
    **{
        f"audit.{name}": ("integration/test_audit.py", function)
        for function, names in _BY_FUNCTION.items()
        for name in names
    },
}
