"""What the lists of family `lists` are made of: kinds of items, 20 or more of each."""

KINDS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "animals": "fox hen owl cow dog cat pig goat horse sheep mouse tiger lion bear wolf duck"
        " frog snake eagle whale",
        "colours": "red blue green black white brown pink grey gold silver orange purple yellow"
        " violet scarlet beige cream navy olive ivory",
        "fruits": "apple pear plum cherry grape lemon lime melon mango peach fig date kiwi banana"
        " apricot berry quince papaya coconut currant",
        "names": "Anna Ben Carl Dora Emma Frank Grace Henry Ida Jack Kate Leo Maria Nina Oscar"
        " Paul Rosa Sam Tom Vera",
        "numbers": "11 14 17 20 23 26 29 32 35 38 41 44 47 50 53 56 59 62 65 68 71 74 77 80 83",
        "letters": "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "cities": "Paris London Rome Berlin Madrid Vienna Oslo Dublin Athens Lisbon Prague Tokyo"
        " Delhi Cairo Lima Boston Chicago Dallas Moscow Milan",
        "tools": "hammer saw drill knife axe spade rake brush wrench file chisel ladder rope nail"
        " screw needle broom shovel plough pliers",
        "drinks": "water milk tea coffee juice beer wine cocoa soda cider rum gin punch tonic"
        " brandy vodka whisky lemonade syrup cola",
        "jobs": "baker nurse farmer pilot teacher doctor judge clerk painter singer writer driver"
        " waiter tailor guard miner lawyer cook dancer sailor",
        "clothes": "shirt coat hat shoe sock glove scarf dress skirt belt boot vest cap jacket"
        " sweater jeans apron gown robe sandal",
        "instruments": "piano violin flute drum harp guitar cello trumpet organ horn oboe banjo"
        " lute tuba bell viola whistle fiddle bugle gong",
    }.items()
}
