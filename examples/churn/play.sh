# What `examples/run churn` does: the story of README.md.

waits_for_a_person() {
    "$binary" run show "$1" -o json >shown && python3 -c '
import json, sys
steps = json.load(open("shown"))["steps"]
sys.exit(not any(step["step"] == "approve" and step["state"] == "waiting" for step in steps))'
}

champion_is() {
    "$binary" model show churn -o json >shown && python3 -c '
import json, sys
sys.exit(json.load(open("shown"))["aliases"]["champion"] != int(sys.argv[1]))' "$1"
}

note "January: the first model"
refit event send --file example/events/1-january.jsonl
over churn/1

note "March: prices have risen, and other customers leave"
refit event send --file example/events/2-march.jsonl
over churn/2
refit run show churn/2

note "April, from an export that has lost two ages of three"
refit event send --file example/events/3-april-without-ages.jsonl
over churn/3
refit run show churn/3

note "April, whole: nothing much has changed, and the numbers leave open whether the new model is better"
refit event send --file example/events/4-april.jsonl
until_true "churn/4 waits for a person" waits_for_a_person churn/4
refit run show churn/4
refit run approve churn/4 --reason "as good as the last one, and it knows April"
over churn/4
refit run evidence churn/4

note "the campaign reaches the wrong people, and says so: back to March, at once"
refit event send --type campaign.failed --data '{"model": "churn", "reached": 0.02}'
until_true "March's model is champion again" champion_is 2
refit run list
refit model history churn
