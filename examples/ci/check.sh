#!/bin/sh
# Hold quantized models against the float models beside them: NAME.int8.onnx against NAME.onnx.
#
#     sh check.sh                        every models/*.int8.onnx
#     sh check.sh models/a.int8.onnx     these only, as pre-commit calls it
#
# What is held, and on what data, is in the [check] table of ptq.toml. CHECK_FLAGS are more options
# of `ptq check`: CHECK_FLAGS=--update-baseline keeps the figures of now. Reports go to $REPORTS.
# Exits with 0 if all hold, with 3 if one is missed, with 1 or 2 if one could not be checked.
set -u
reports=${REPORTS:-reports}
mkdir -p "$reports" || exit 1
[ $# -gt 0 ] || set -- models/*.int8.onnx
code=0
for quantized in "$@"; do
    name=$(basename "$quantized" .int8.onnx)
    echo "== $quantized"
    # shellcheck disable=SC2086 # CHECK_FLAGS are words
    ptq check "${quantized%.int8.onnx}.onnx" "$quantized" ${CHECK_FLAGS-} \
        --junit "$reports/$name.xml" --markdown "$reports/$name.md"
    one=$?
    # GitHub shows what is in this file on the page of the job
    if [ -n "${GITHUB_STEP_SUMMARY-}" ] && [ -f "$reports/$name.md" ]; then
        cat "$reports/$name.md" >> "$GITHUB_STEP_SUMMARY"
    fi
    # an error says more than a figure that was missed, and both more than success
    case $code:$one in 0:* | 3:[12]*) code=$one ;; esac
done
exit "$code"
