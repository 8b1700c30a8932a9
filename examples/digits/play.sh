# What `examples/run digits` does: the three deliveries of README.md. The first run installs scikit-learn.

note "300 labels, then a burst of twenty events, then labels that were shuffled upstream"
for file in example/events/*.jsonl; do
    refit event send --file "$file"
    deliveries=$((${deliveries:-0} + 1))
    over "digits/$deliveries"
done

refit run list
refit run show digits/3
refit event show digits-0300-0335
refit model history digits
