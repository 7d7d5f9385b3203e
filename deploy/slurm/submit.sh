#!/bin/sh
# Submits the array and the job that comes after it: submit.sh [TASKS]
set -eu
here=$(dirname "$0")
tasks=${1:-4}
files=$(sbatch --parsable --array="0-$((tasks - 1))" "$here/files.sbatch")
rows=$(sbatch --parsable --dependency="afterok:$files" --kill-on-invalid-dep=yes "$here/rows.sbatch")
echo "files: array $files of $tasks; rows: job $rows, when all of them have ended well"
