#!/usr/bin/env python3
"""Writes the stories corpus: short, varied stories with happy, plain and sad endings, and openings to continue.

usage: generate.py --out CORPUS.jsonl [--count 30000] [--seed 0] [--prompts PROMPTS.jsonl]

A story is an opening (the prompt), one or two events, a turn and an ending. The same openings lead to all three moods, so that
a model trained on it can be steered towards any of them. Lines are {"prompt": ..., "completion": ...}.
"""
import argparse
import json
import random

GIRLS = "Mia Anna Lily Rosa Ella Nora Zoe Ruby Clara Ivy Lucy Emma Sara Hana Maya June Ada Vera Nina Eva".split()
BOYS = "Tom Ben Max Leo Sam Jack Omar Finn Hugo Noah Karl Luis Ravi Theo Adam Ian Paul Nico Oscar Tim".split()
PETS = "dog cat rabbit pony duck hamster goat parrot kitten puppy turtle hen".split()
THINGS = ("kite ball boat drum book lamp hat bike doll box map ring bell shell basket jar scarf whistle mirror coin "
          "wagon puppet flute blanket").split()
COLORS = "red blue green yellow white black golden silver small big old new".split()
PLACES = ["park", "beach", "forest", "garden", "market", "farm", "river", "hill", "school", "town", "lake", "castle", "barn",
          "meadow", "harbor", "library"]
KIN = "mother father sister brother grandma grandpa uncle aunt neighbor teacher".split()
FOODS = "bread soup cake apples honey berries cheese pancakes plums cookies".split()
TIMES = ["One day", "One morning", "After lunch", "In the spring", "On Sunday", "That night", "Last winter", "One evening"]
WEATHER = "rain snow wind fog thunder heat".split()

OPENINGS = [
    "{name} had a {color} {thing}.",
    "{time} {name} went to the {place}.",
    "{name} lived near the {place} with a {pet}.",
    "{time} {name} found a {thing} in the {place}.",
    "{name} wanted to bake {food} for {pos} {kin}.",
    "Once there was a {kid} named {name} who loved a {pet}.",
    "{name} and {pos} {kin} walked to the {place}.",
    "{time} {name} took {pos} {pet} to the {place}.",
    "{name} made a {color} {thing} for {pos} {kin}.",
    "{name} heard a sound behind the {place}.",
]
EVENTS = [
    "{sub} carried the {thing2} up the {place2}.", "A {pet2} ran across the path.", "The {weather} came fast.",
    "{sub} looked under a stone and saw a {thing2}.", "{pos_c} {kin2} called from the {place2}.",
    "{sub} followed the {pet2} to the {place2}.", "An old man asked for some {food2}.", "{sub} climbed a tall tree to see the {place2}.",
    "The bridge by the {place2} was closed.", "{sub} shared {food2} with a {pet2}.", "A {color2} bird took the {thing2}.",
    "{sub} opened the door of the {place2}.", "{sub} built a small house of sticks.", "{sub} wrote a letter to {pos} {kin2}.",
    "The {pet2} hid behind a {thing2}.", "{sub} sang a song about the {place2}.", "{sub} painted the {thing2} {color2}.",
    "The road was long and full of {weather}.", "{sub} planted seeds next to the {place2}.", "A boat with {color2} sails came in.",
    "{sub} counted the stars over the {place2}.", "{sub} swept the floor and washed the {thing2}.",
    "The clock in the {place2} struck nine.", "{sub} waited by the gate for {pos} {kin2}.", "{sub} ran a race against a {pet2}.",
    "{sub} traded the {thing2} for some {food2}.", "Two children came to play by the {place2}.", "{sub} drew a map of the {place2}.",
]
TURNS = {
    "happy": ["Then a kind {kin2} helped {obj}.", "{sub} smiled and tried again.", "Soon the bright sun came out.",
              "A new friend gave {obj} a warm {thing3}.", "{sub} laughed when the {pet2} danced.", "{sub} felt brave and proud.",
              "The {pet2} was safe and gave a happy jump.", "Everyone cheered for {name}.", "{sub} found a lovely gift inside.",
              "To {pos} joy, the {thing3} was perfect."],
    "plain": ["Then {sub_l} walked on.", "{sub} put the {thing3} on a shelf.", "It took most of the afternoon.",
              "{sub} asked {pos} {kin2} about it.", "Some people from the {place2} looked on.", "{sub} turned around at the corner.",
              "The {pet2} went to sleep.", "{sub} read the sign twice.", "They talked about the {weather}.",
              "{sub} closed the window."],
    "sad": ["Then the {thing3} broke.", "{sub} fell and hurt {pos} knee.", "The {pet2} was lost in the dark.",
            "{sub} was afraid and alone.", "Nobody came to help {obj}.", "The cold {weather} ruined the {thing3}.",
            "{sub} cried behind the {place2}.", "A cruel {kin2} shouted at {obj}.", "The {food2} was gone.",
            "{sub} dropped the {thing3} and lost it."],
}
ENDINGS = {
    "happy": ["{name} hugged {pos} {kin3} and was very happy.", "They laughed together all the way home.", "It was a wonderful day full of joy.",
              "{name} smiled and thanked {pos} friend.", "{sub} was glad and slept well.", "The {kin3} was proud of {name}, and they shared a sweet cake.",
              "From then on they were best friends.", "{name} loved the {thing3} and danced with delight.", "Everyone was happy and sang a merry song."],
    "plain": ["{name} went home and ate some {food3}.", "Then it was time for bed.", "The next day {sub_l} did the same.",
              "{sub} told {pos} {kin3} what had happened.", "{name} put everything back in its place.", "That was the end of the trip.",
              "They took the road back to the {place3}.", "{sub} kept the {thing3} in a box.", "{name} wrote it down in a book."],
    "sad": ["{name} was sad and cried all night.", "{sub} went home alone with tears in {pos} eyes.", "It was a dark and lonely day.",
            "{name} never saw the {pet2} again.", "{sub} was sorry, but it was too late.", "The {kin3} was angry, and {name} felt terrible.",
            "{name} lost {pos} best friend that day.", "{sub} sat in the cold and wept.", "Everything was broken and {name} was miserable."],
}


def cast(rng):
    """Draws the words that fill one story's slots."""
    girl = rng.random() < 0.5
    words = {
        "name": rng.choice(GIRLS if girl else BOYS), "kid": "girl" if girl else "boy", "sub": "She" if girl else "He",
        "sub_l": "she" if girl else "he", "obj": "her" if girl else "him", "pos": "her" if girl else "his",
        "pos_c": "Her" if girl else "His", "time": rng.choice(TIMES),
    }
    for slot, pool in (("pet", PETS), ("thing", THINGS), ("color", COLORS), ("place", PLACES), ("kin", KIN), ("food", FOODS)):
        first, second, third = rng.sample(pool, 3)
        words.update({slot: first, slot + "2": rng.choice((first, second)), slot + "3": rng.choice((first, third))})
    words["weather"] = rng.choice(WEATHER)
    return words


def article(text):
    """Writes `an` before a vowel."""
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def story(rng):
    """Draws a story as (prompt, completion)."""
    words = cast(rng)
    mood = rng.choice(("happy", "plain", "sad"))
    parts = rng.sample(EVENTS, rng.choice((1, 1, 2, 2, 3)))
    parts += rng.sample(TURNS[mood], rng.choice((1, 1, 2)))
    parts.append(rng.choice(ENDINGS[mood]))
    fill = lambda part: article(part.format(**words))
    return fill(rng.choice(OPENINGS)), "".join(" " + fill(part) for part in parts)


def write(path, rows):
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", help="also write 600 distinct openings to this file")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    stories = [story(rng) for _ in range(args.count)]
    write(args.out, ({"prompt": prompt, "completion": completion} for prompt, completion in stories))
    if args.prompts:
        openings = sorted({prompt for prompt, _ in stories})
        random.Random(args.seed).shuffle(openings)
        write(args.prompts, ({"prompt": prompt} for prompt in openings[:600]))


if __name__ == "__main__":
    main()
