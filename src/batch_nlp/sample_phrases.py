"""The grammar that the synthetic reviews of `batch_nlp.sample` are built from.

Alternatives are separated by ``|``; ``{symbol}`` stands for one alternative of that symbol. A thing
is written with its verb after a slash (``the fries/were``), so that it agrees in every sentence.
All of it was made up for this project.
"""

from __future__ import annotations

import re

Scope = dict[str, list[list[str]]]
"""Symbol → alternatives, each of which is literal, symbol, literal, symbol, … literal."""


def _table(text: str) -> dict[str, list[str]]:
    """Read ``name: one | another``, with lines that go on indented."""
    rows = (row.split(":", 1) for row in re.sub(r"\n +", " ", text.strip()).split("\n"))
    return {name: [option.strip() for option in options.split("|")] for name, options in rows}


# What can be said about each kind of thing.
_OPINIONS = _table("""
taste.good: tasty | fresh | well seasoned | nicely cooked | full of flavor | hot and crisp | filling
  | generous | just sweet enough | tender | worth the drive
taste.bad: bland | soggy | lukewarm | overcooked | greasy | too salty | dry | stale | skimpy |
  watery | chewy | cold by the time we got it | burnt | inedible | raw in the middle
person.good: friendly | attentive | patient | polite | helpful | quick with a smile | honest |
  professional | welcoming | easy to talk to | kind | the reason we come back
person.bad: rude | distracted | impatient | short with us | nowhere to be found | clueless | cold |
  pushy | on the phone | dismissive | confused | openly hostile | dishonest
pace.good: quick | short | faster than quoted | smooth | on time | easy | painless | well organized
  | under ten minutes | prompt | simple
pace.bad: slow | long | chaotic | twice what they quoted | disorganized | late | confusing | forty
  minutes | dragging on | endless | a mess | over an hour
place.good: clean | cozy | bright | quiet | spacious | comfortable | well kept | inviting | cute |
  spotless | nicely decorated | easy to find
place.bad: dirty | cramped | loud | sticky | dark | run down | freezing | smelly | crowded | worn
  out | stuffy | hard to find | a health hazard | filthy
price.good: fair | reasonable | lower than expected | good for the area | honest | worth it | easy
  on the wallet | a steal | unbeatable
price.bad: too high | overpriced | padded with fees | higher than the quote | steep | not worth it |
  up again | a rip off | robbery
work.good: done right | solid | careful | neat | exactly as asked | thorough | clean | well made |
  done on the first try | holding up | first class
work.bad: sloppy | rushed | uneven | incomplete | not what I asked for | careless | faulty | poor |
  falling apart after a week | wrong | botched
""")

# What each group of businesses is talked about for; the first kinds come up most.
_THINGS = _table("""
restaurant.taste: the tacos/were | the soup/was | my burger/was | the noodles/were | the curry/was |
  the salad/was | the ribs/were | the pancakes/were | the fish/was | the rice/was | the crust/was |
  the dumplings/were | the food/was | dessert/was | the sauce/was
restaurant.person: our server/was | the hostess/was | the manager/was | the waiter/was | the
  staff/was | the girl at the register/was | the chef/was
restaurant.pace: the wait/was | the service/was | getting a table/was | takeout/was | delivery/was
bar.taste: the cocktails/were | the beer/was | my margarita/was | the wings/were | the wine list/was
  | the nachos/were | the old fashioned/was | the happy hour snacks/were
bar.person: the bartender/was | the bouncer/was | the staff/was | our waitress/was | the crowd/was |
  the owner/was
bar.pace: the service/was | the line outside/was | getting a drink/was | closing our tab/was
health.work: the cleaning/was | the exam/was | my treatment/was | the x-ray/was | the follow up/was
  | the filling/was | the massage/was | the diagnosis/was
health.person: the nurse/was | the doctor/was | the dentist/was | the receptionist/was | the
  hygienist/was | the front desk/was | the therapist/was
health.pace: the wait/was | check-in/was | getting an appointment/was | the paperwork/was | the
  phone line/was
shopping.work: the jacket/was | the selection/was | the couch/was | the shoes/were | the return/was
  | the bike/was | the order/was | the alterations/were | the shelves/were
shopping.person: the cashier/was | the sales guy/was | the staff/was | the manager/was | the lady in
  the fitting room/was | customer service/was
shopping.pace: the checkout line/was | shipping/was | the refund/was | the pickup/was
beauty.work: my haircut/was | the color/was | my nails/were | the facial/was | the wax/was | the
  blowout/was | my highlights/were | the pedicure/was | the trim/was
beauty.person: my stylist/was | the barber/was | the nail tech/was | the receptionist/was | the
  owner/was | the girl who washed my hair/was
beauty.pace: booking/was | the wait/was | the appointment/was | the walk-in list/was
automotive.work: the brake job/was | the oil change/was | the new tires/were | the paint/was | the
  inspection/was | the car wash/was | the repair/was | the alignment/was
automotive.person: the mechanic/was | the service advisor/was | the guy at the desk/was | the tow
  driver/was | the owner/was | the salesman/was
automotive.pace: the wait/was | drop-off/was | getting the part/was | the pickup/was
other.work: the tour/was | the room/was | the class/was | the move/was | the show/was | the carpet
  cleaning/was | the grooming/was | the wiring/was | the lesson/was
other.person: the guide/was | the instructor/was | the crew/was | the front desk/was | the
  technician/was | the groomer/was | the agent/was
other.pace: check-in/was | the booking/was | the callback/was | scheduling/was
""")
_EVERYWHERE = _table("""
place: the place/was | the parking lot/was | the restroom/was | the waiting area/was | the
  location/was | the building/was | the music/was | the lighting/was | the seats/were
price: the price/was | the bill/was | the prices/were | the total/was | the cost/was
""")

# What the sentences share. An opinion is one of pro, con and even; the words of the other side
# stand in each on purpose, so that words alone do not give the opinion away.
_SENTENCES = _table("""
pro: {was} {good} | {was} {good} | {was} {good} | {was} {good} | {was} simply {great} | {was} {adv}
  {good} | {was} {great} | {was} {great} | {was} {good} and {great} | {wasnt} {bad} at all | {was}
  anything but {bad} | {was} never {bad}, not once | {was} {good}, which is rare around here | {n}
  made my {day} | I have no complaints about {n} | {n} won us over | you can count on {n} | I
  expected {bad} and got {good} | {n} used to be {bad}, not anymore | my {who} said {was} {bad}, I
  don't agree | {was} {good} even when they were slammed | {was} less {bad} than I feared | I was
  afraid {was} going to be {bad}, wrong again | I can't say enough about {n} | not one thing about
  {n} was {bad} | {n} deserved the hype | {was} {good} as always | I have never had an issue with
  {n} | {n} fixed a bad {day}
con: {was} {bad} | {was} {bad} | {was} {bad} | {was} {bad} | {was} simply {awful} | {was} {adv}
  {bad} | {was} {awful} | {was} {awful} | {was} {bad} and {awful} | {wasnt} {good} | {wasnt} {great}
  | {was} far from {good} | {was} not nearly as {good} as people say | {n} let us down | {n}
  deserved better | {wasnt} what I would call {good} | {was} {good} last year, not anymore | I
  expected {great} and got {bad} | my {who} said {was} {great}, I don't agree | {n} was supposed to
  be {good} | nothing about {n} was {good} | {was} {bad} as always | I am still waiting for {n} to
  be {good} | {n} ruined my {day} | {was} {bad} once again | they told me {n} would be {great},
  wrong again | {was} {bad} even on an empty {weekday} | I have never had anything {good} to say
  about {n} | it takes luck for {n} to be {good}
even: {was} {meh} | {was} {meh} | {was} {meh}, no more and no less | {n} did the job | {was} neither
  {good} nor {bad} | {was} {good} one {day} and {bad} the next | I have had better and worse than
  {n} | {wasnt} {great}, {wasnt} {bad} either | {was} {good} at first, then {bad} | {n} left me
  undecided | {was} {meh} for the money | my {who} found {n} {good}, I thought {bad} | {was} {bad}
  at first, then {good} | {was} {meh} compared with the one across town
irony: oh sure, {was} {good}, if you enjoy being ignored | {was} so {great} that I left | great job,
  {n} only took three tries | {good}? {great}? that is what the sign says about {n} | {was} {great},
  said nobody ever | wow, just wow, {n} really outdid themselves this time | thanks for making my
  {day} with {n}, I love throwing money away | best {day} ever, {was} {good} for a full five minutes
filler: we came on a {weekday} with my {who} | this was my {nth} visit | my {who} lives nearby | it
  was raining the whole {day} | we had tickets for a show later | I ordered online the {nth} time |
  they have been here for years | I read the other reviews first | there is a bus stop right outside
  | I had the {day} off | my {who} picked it | we were in town for a wedding | I found this place on
  my phone | I am picky, so take it with a grain of salt | there were maybe six people ahead of us |
  the kids were with us | my old place closed down last spring | it is next to the bank | we sat
  near the window | they open at nine on a {weekday} | I paid with a card | my {who} asked for the
  usual | I moved here {years} years ago | the dog came along | we talked about the game the whole
  time
era: masks were required at the door | they had a limit on people inside | everything was by
  appointment because of covid | we waited in the car until they called
open: where do I start | so here is my story | first time here | quick review | update | I have been
  coming here for {years} years | my {who} told me about this place | I don't usually write reviews
  | I really wanted to love this place | honest review here | stopped in on a {weekday} | I had high
  hopes | long overdue review | let me explain
pro.open: love this place | what a find | so glad we tried it | hidden gem | finally
con.open: buyer beware | what a letdown | save yourself the trip | never again | wow
even.open: mixed feelings | it's okay | not sure what to think | somewhere in the middle
close: that's all | your mileage may vary | hope this helps | make of that what you will | just my
  two cents | we will see about next time | thanks for reading
pro.close: we will be back | highly recommend | can't wait to return | go, you won't regret it | I
  would not go anywhere else | my new favorite | don't hesitate to try it | worth every penny | you
  will not be disappointed | keep it up | bad reviews here make no sense
con.close: we won't be back | would not recommend | never going back | save your money | I regret it
  | go anywhere else | good luck to them | so disappointed | do better | the great reviews here make
  no sense | I want my money back | zero stars if I could
even.close: might give it another try | not in a hurry to return | I would go back if someone else
  paid | it could go either way | worth a try once | room for improvement | good, not great | maybe
  on a {weekday} | I may be back, I may not
great: outstanding | unforgettable | superb | amazing | great | the best I have had in years |
  perfect | wonderful | fantastic | awesome | excellent | lovely | good | nice | pretty good
awful: awful | terrible | horrible | disgusting | the worst I have had | a disaster | a joke |
  unacceptable | ridiculous | a nightmare | worse than last time | bad | not good | disappointing
meh: fine | average | okay | passable | nothing special | standard | forgettable | decent enough |
  alright | what you would expect | hit or miss | so so | nothing fancy | tolerable | acceptable
adv: really | very | so | pretty | super | kind of | honestly | surprisingly | always | a little |
  quite | totally
who: sister | husband | wife | coworker | mom | neighbor | friend | boss | brother | dad | roommate
  | girlfriend | cousin
day: day | week | night | morning | weekend | evening | birthday
weekday: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday
nth: first | second | third | fifth
years: two | three | five | ten
""")

# Two opinions in one sentence: the one that counts stands last, or first.
LAST_COUNTS = (
    ", but ",
    "; still, ",
    ", yet ",
    ". However, ",
    " but ",
    ". Then again, ",
    ", though ",
)
FIRST_COUNTS = (", although ", ", even if ", " even though ", ", never mind that ", ", while ")
JOINS = (" and ", ", ", "; ", ". Also, ", ", plus ", ". And ")

# Opinion -> whole messages of a word or three, and what is put after longer ones.
SHORT = _table("""
pro: 👍 | Great! | ok | Love it | Yum | 😍😍 | not bad! | Good | the best | A+ | ❤️ | not bad at all
con: 👎 | Nope. | ok... | Terrible | Not good | never again | 😡 | meh | ugh | No. | wasn't great
even: ok | meh | It's fine | so so | average | 🤷 | Not bad | Good | decent | k | wasn't great
""")
EMOJI = _table("""
pro: 😍 | 👍 | 🎉 | 😋 | 🔥 | 😊 | 🙌
con: 👎 | 😡 | 🤮 | 😒 | 💸 | 😂 | 🙄
even: 🤷 | 😐 | 🤔 | 😅 | 🙃
""")

CATEGORIES = _table("""
restaurant: Mexican, Restaurants | Restaurants, Pizza, Italian | Thai, Restaurants, Soup | Breakfast
  & Brunch, Restaurants, Diners | Restaurants, Burgers, Fast Food
bar: Bars, Nightlife | Nightlife, Cocktail Bars, Bars | Sports Bars, Bars, Nightlife
health: Dentists, Health & Medical | Health & Medical, Urgent Care, Doctors
shopping: Shopping, Furniture Stores | Fashion, Shopping, Shoe Stores | Bikes, Shopping
beauty: Hair Salons, Beauty & Spas | Nail Salons, Beauty & Spas | Barbers, Beauty & Spas
automotive: Auto Repair, Automotive | Automotive, Tires, Oil Change Stations
other: Hotels, Event Planning & Services | Home Services, Movers | Pets, Pet Groomers | Local
  Services, Carpet Cleaning | Active Life, Yoga
""")
_PROPER = _table("""
names: Ada | Bruno | Carla | Dmitri | Elena | Farid | Greta | Hugo | Ines | José | Kira | Luis |
  Mina | Nils | Olga
brands: Blue Lantern | Copper Kettle | Two Herons | Marigold | Northgate | Old Pier | Café Lumen
streets: Maple St | 2nd Ave | Orchard Rd | Mill Ln | Harbor Blvd | Old Quarry Way
""")
NAMES, BRANDS, STREETS = _PROPER.values()
TOWNS = (
    ("Alder Falls", "OR", 44.1, -122.9),
    ("Port Linden", "FL", 27.6, -82.1),
    ("Cedar Junction", "AZ", 32.7, -111.3),
    ("New Harrow", "PA", 40.3, -75.6),
    ("Saint-Aubry", "QC", 45.7, -73.4),
)


def scopes(group: str) -> list[Scope]:
    """Return what can be said in reviews of a category group, one scope for each kind of thing.

    Parameters
    ----------
    group : str
        A key of `CATEGORIES`.

    Returns
    -------
    list of dict
        The kinds that the group is about come first: two of its own, how long it takes, the place
        and the price.

    Examples
    --------
    >>> [scope["was"][0] for scope in scopes("automotive")[:2]]
    [['the brake job was'], ['the mechanic was']]
    """
    own = {name: things for name, things in _THINGS.items() if name.startswith(f"{group}.")}
    found = []
    for name, things in (own | _EVERYWHERE).items():
        kind = name.removeprefix(f"{group}.")
        pairs = [thing.split("/") for thing in things]
        table = _SENTENCES | {
            "good": _OPINIONS[f"{kind}.good"],
            "bad": _OPINIONS[f"{kind}.bad"],
            "n": [thing for thing, _ in pairs],
            "was": [f"{thing} {verb}" for thing, verb in pairs],
            "wasnt": [f"{thing} {verb}n't" for thing, verb in pairs],
        }
        found.append({name: [re.split("{(.+?)}", o) for o in table[name]] for name in table})
    return found
