#!/usr/bin/env bash
# Which temperature suits the digits, and does the weight of kd move the choice? 12 students of the teacher that
# `potstill run recipe=digits` trains (or of TEACHER), each in its own run of the W&B group digits_temperature.
set -euo pipefail
teacher=${TEACHER:-runs/recipes/digits/teacher/student}

exec .venv/bin/potstill train -m experiment=digits teacher.path="$teacher" run.experiment=digits_temperature \
    loss.term.kd.temperature=1,2,4,8 loss.term.kd.weight=0.5,1,2 "$@"
