# What `examples/run sweep` does: the three sweeps of README.md, by events.

note "five topics, then forty, then two"
for file in example/events/*.jsonl; do
    refit event send --file "$file"
    sweeps=$((${sweeps:-0} + 1))
    over "letters/$sweeps"
done

refit run list
refit run show letters/3
refit model history letters
