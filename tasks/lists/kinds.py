"""What the lists of family `lists` are made of: kinds of items, 20 of each.

Every item is one piece of the vocabulary `gym` after a blank: a small model learns to copy an item
long before it learns to spell one.
"""

KINDS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "animals": "bears bees beetles birds butterflies camels cats chickens cows crabs crickets"
        " crocodiles deer dogs dolphins eagles elephants geese giraffes goats",
        "colours": "red blue green brown white pink gold silver purple yellow violet cyan magenta"
        " indigo crimson orange gray ivory aquamarine sienna",
        "foods": "chocolate cheese pizza salad burritos nachos tacos brownies curry muffins"
        " popcorn pastries pie beef peach plum papaya vegetables smoothie coffee",
        "names": "Alice Anna Alexander Amelia Aurora Ava Barbara Billy Charles Charlotte Daniel"
        " David Dorothy Edward Ella Emily Emma Ethan George Hannah",
        "jobs": "ambassador chemist teachers doctors developers engineers musicians"
        " philosophers reporters scientist students writers researcher manager editor"
        " programmers lawyers artists prince queen",
        "vehicles": "airplanes canoes cars ferries forklifts pedicabs sailplanes scooters segways"
        " skateboard roadsters trams gliders vehicles wheels machine flight engine"
        " microwave robot",
        "hobbies": "football hockey soccer volleyball lacrosse hiking camping kayaking knitting"
        " painting dancing drawing biking blogging podcasting stargazing wrestling"
        " winemaking sketching chess",
        "sciences": "algebra arithmetic astronomy biology ecology geography geology geometry"
        " history math philosophy poetry science sociology zoology language music logic"
        " politics probability",
        "places": "bank bathroom garage garden house room school market park desert sea waterfall"
        " pantry island corner library port space wall villa",
        "things": "box button basket bouquet coin cube cup card book bomb ruler paper pin stamps"
        " stones spoons telephone notebook mirror board",
        "qualities": "long short old new fast slow quick rich high low dark light empty full early"
        " late powerful great clean careful",
        "actions": "run read write draw jump laugh help speak drink buy sell cut fill turn hold"
        " pick press learn swim pray",
    }.items()
}
