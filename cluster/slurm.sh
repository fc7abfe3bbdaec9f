#!/usr/bin/env bash
# raymix on Slurm: one Ray cluster for the length of the job, the study inside it. For Ray 2.60.0: sbatch FILE.
#
# Edit, or give with `raymix submit --option KEY=VALUE`: partition, account, time, cpus (per node), and
# activate (a command that puts raymix on PATH, `source ~/venv/bin/activate` say). The study must be on a path or URI
# that every node sees. Costs at rest: nothing; the job ends with the study. A requeued job continues the study.
#SBATCH --job-name=raymix
#SBATCH --partition=EDIT-ME
#SBATCH --account=EDIT-ME
#SBATCH --time=24:00:00
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=raymix-%j.log
set -euo pipefail
umask 077
true
export RAY_AUTH_MODE=token
if [ ! -s "$HOME/.ray/auth_token" ]; then ray get-auth-token --generate >/dev/null; fi
chmod 600 "$HOME/.ray/auth_token"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | cut -d ' ' -f 1)
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="$address:$port"
srun --kill-on-bad-exit=1 ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus=1 --dashboard-host=127.0.0.1 -- \
  raymix run space.yaml --study EDIT-ME://bucket/study --json
