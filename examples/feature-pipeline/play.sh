# What `examples/run feature-pipeline` does: the story of README.md.

store=shared # examples/run has set it in the workflows
python3 example/events.py 1 >week-1.jsonl
python3 example/events.py 2 >week-2.jsonl
totals() {
    printf '\n$ python3 totals.py\n'
    python3 example/totals.py "$store"
}

note "week 1 of the shop: $(wc -l <week-1.jsonl) events of three tenants, in batches of at most 500"
refit event send --file week-1.jsonl
over features/{1..8} propensity/1
totals

note "an answer got lost, say: the same batch is worked on again, and the events come once more"
refit run retry features/1 --all --wait
refit event send --file week-1.jsonl
totals

note "week 2: $(wc -l <week-2.jsonl) more"
refit event send --file week-2.jsonl
over features/{9..15} propensity/2
totals

refit run list
refit event list --type features.updated --limit 5
refit event show north-05-2026-03-02-user.clicked-0
refit run show propensity/2
refit model history propensity
