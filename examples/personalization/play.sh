# What `examples/run personalization` does: the story of README.md.

served=shared/rankings.json # examples/run has set the folder in publish.yaml
for act in 1 2 3; do python3 example/events.py "$act" >"act-$act.jsonl"; done

# published VERSION: whether the serving system has the rankings of this version, and nothing more is to come.
published() {
    grep -q "\"version\": $1," "$served" && [[ "$("$binary" run list --state running -o json)" == "[]" ]]
}
rankings() {
    printf '\n$ cat rankings.json\n'
    cat "$served"
}

note "three segments, 100 requests each: three rankings, promoted one after the other and published together"
refit event send --file act-1.jsonl
over ranking/{1..3}
until_true "version 3 is published" published 3
rankings

note "the students' taste has changed"
refit event send --file act-2.jsonl
over ranking/4
until_true "version 4 is published" published 4
rankings

note "a robot takes whatever families are shown"
refit event send --file act-3.jsonl
over ranking/5

refit run list --workflow ranking
refit run list --workflow publish-ranking
refit event show r1-000-served
refit event list --type ranking.changed
refit run show ranking/5
refit model history ranking
