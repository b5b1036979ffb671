"""The words that say how a statement is meant: negation, modality and opposites.

English, German, French and Spanish. In other languages only numbers, units and names are compared.
"""

import re
from collections.abc import Iterator
from typing import Literal

Modality = Literal["possible", "advised", "necessary"]

_ENDINGS = re.compile(r"(?:ing|ed|es|s|e)\Z")
_SHORTEST_STEM = 3


def light_stem(word: str) -> str:
    """Returns a folded word without its inflection, roughly: "increas" of "increases" and "increasing"."""
    stem = _ENDINGS.sub("", word)
    if len(stem) < _SHORTEST_STEM:
        return word
    return stem[:-1] if len(stem) > _SHORTEST_STEM and stem[-1] == stem[-2] else stem


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words(
    # English
    "a about all also an and any are as at be because been being but by did do does doing done each "
    "either even for from had has have having he her here him his how i if in into is it its itself just "
    "me my of on one or other our own same she so some such than that the their them then there "
    "therefore these they this those though through thus to too us very was we were what when where "
    "whether which while who whom whose why will with would you your yours however yes mr mrs ms dr "
    # German
    "aber als am an auch auf aus bei bis da damit das dass dein dem den denn der des die dies diese "
    "diesem diesen dieser dieses doch dort du durch ein eine einem einen einer eines er es für hat haben "
    "hier ich ihr ihre im in indem ist ja mein mit nach noch nun oder ob schon sein seine sich sie sind "
    "so sondern sowie über um und uns von vom war waren was weil welche wenn werden wer wie wir wird wo "
    "zu zum zur "
    # French
    "au aux avec ce ces cet cette comme dans de des donc du elle elles en est et eux il ils je la le les "
    "leur leurs lui l d qu s c j mais ma mes moi mon nos notre nous on ou où par pas plus point pour que "
    "quel quelle qui sa se ses si son sont sur ta tes ton tu un une vos votre vous y été être a ont "
    # Spanish
    "al como con cual cuando cuya de del donde e el ella ellas ellos en era es esa ese eso esta estas "
    "este esto estos fue ha han hay la las lo los más mi muy nos o para pero por que quien se ser será "
    "si sin sobre son su sus también te tu un una unas uno unos usted y ya"
)
"""Words that any sentence may have, so that they support nothing."""

GERMAN_WORDS = _words(
    "aber als auch auf aus bei das dem den der des dies diese ein eine einem einen einer eines für im "
    "ist kann können mit muss nach nicht oder sich sie sind und vom von wenn werden wird zu zum zur über "
    "keine kein wurde"
)
ENGLISH_WORDS = _words("the of is and to are was with for that this by from be which it as or not has")

NEGATIONS = _words(
    "not no never none nobody nothing neither nor without unless "
    "nicht kein keine keinen keinem keiner keines nie niemals niemand ohne weder nirgends "
    "ne ni jamais sans aucun aucune rien nul nulle "
    "lack lacks lacked lacking nunca jamás ningún ninguna ninguno nadie nada tampoco sin"
)
SECOND_NEGATIONS = _words("pas")
"""Words that negate where no other does: "ne … pas"."""
UNABLE = _words("unable impossible incapable unmöglich imposible")
"""They negate and say what is possible."""
NOT_ONLY = _words("only merely just simply nur bloß seulement solo solamente sólo")
"""After a negation, they undo it: "not only"."""

_MODALS: dict[Modality, str] = {
    "possible": "can could may might able allowed permitted possible optional optionally "
    "kann kannst können könnte könnten darf dürfen dürfte möglich erlaubt "
    "peut peuvent peux pouvez pouvons pouvoir pourrait pourraient "
    "puede pueden puedes podemos poder podría podrían posible",
    "advised": "should ought recommended advised sollte sollten soll sollen empfohlen "
    "devrait devraient devriez recommandé debería deberían recomendado",
    "necessary": "must shall required needs need mandatory obliged "
    "muss musst müssen müsste müssten erforderlich notwendig "
    "doit doivent devez devons devoir faut obligatoire debe deben debes debemos deber obligatorio",
}
MODALS = {word: modality for modality, words in _MODALS.items() for word in words.split()}

SOFT_BREAKS = _words("and or und oder et ou y o e")
"""A clause may end before them; what governs the clause may govern the next one too."""
HARD_BREAKS = _words(
    "but while whereas because although though if when unless until which who aber sondern weil wenn während "
    "obwohl mais parce si quand pero porque sino cuando"
)
ADVERBS = _words(
    "yet still often usually always ever even currently longer more mehr jamais encore ya todavía aún"
)
"""Beside those in -ly, what may stand between a negation or a modal verb and its verb."""

_OPPOSITES = """
increase grow|decrease reduce decline
increased|decreased
increasing|decreasing
rise|fall
raise|lower
more|less fewer
most|least
above|below
over|under
up|down
upper|lower
higher|lower
high|low
highest|lowest
greater larger bigger|smaller lesser
large big|small
largest biggest|smallest
longer|shorter
long|short
longest|shortest
maximum max maximal|minimum min minimal
upward upwards|downward downwards
upstream|downstream
upgrade|downgrade
before prior|after
earlier|later
early|late
previous preceding|next following subsequent
first|last
enable|disable
activate|deactivate
allow permit|forbid deny prohibit disallow
accept|reject refuse
include|exclude
add|remove delete
start begin|stop end
open|close closed
true|false
on|off
lock|unlock
install|uninstall
mount|unmount
connect|disconnect
encode|decode
encrypt|decrypt
compress|decompress
import|export
upload|download
read|write
input|output
push|pull
inside|outside
internal|external
interior|exterior
left|right
top|bottom
front|back
fast quick|slow
faster|slower
better|worse
best|worst
improve|worsen
strong|weak
stronger|weaker
positive|negative
gain|loss
win won|lose lost
success succeed|failure fail
present|absent
common|rare
often frequently|rarely seldom
frequent|infrequent rare
always|rarely sometimes never
usually often|never rarely
same|different
public|private
hot|cold
warm|cool
warmer|cooler
heavy|light
many|few
majority|minority
good|bad
within|beyond
support|oppose
agree|disagree
like|dislike
appear|disappear
safe|dangerous
easy|difficult hard
incoming|outgoing
local|remote
legal|illegal
healthy|sick
alive|dead
empty|full
full|partial
thick|thin
wide|narrow
deep|shallow
old|new
older|newer younger
younger|older elder
oldest|newest
young|elderly
acute|chronic
benign|malignant
dominant|recessive
male|female
buy|sell
bought|sold
accelerate|decelerate
promote|inhibit
activation|inhibition
upregulated|downregulated
upregulate|downregulate
ascending|descending
append|prepend
visible hidden|invisible
expand|collapse shrink
attach|detach
forward|backward
horizontal|vertical
north|south
east|west
northern|southern
eastern|western
erhöhen|senken verringern
erhöht|gesenkt verringert
steigen|sinken fallen
mehr|weniger
vor|nach
oben|unten
höher|niedriger
hoch|niedrig
größer|kleiner
länger|kürzer
früher|später
aktivieren|deaktivieren
aktiviert|deaktiviert
erlauben|verbieten
öffnen|schließen
maximal|minimal
augmenter|diminuer réduire
augmente|diminue réduit
plus|moins
avant|après
haut|bas
activer|désactiver
activé|désactivé
autoriser|interdire
ouvrir|fermer
supérieur|inférieur
aumentar|disminuir reducir
aumenta|disminuye reduce
más|menos
antes|después
alto|bajo
activar|desactivar
permitir|prohibir
abrir|cerrar
superior|inferior
mayor|menor
"""


def _opposites() -> Iterator[tuple[str, frozenset[str]]]:
    for row in _OPPOSITES.split("\n"):
        sides = [frozenset(map(light_stem, side.split())) for side in row.split("|")]
        if len(sides) == 2:
            for side, other in (sides, sides[::-1]):
                yield from ((stem, other) for stem in side)


def _gathered(pairs: Iterator[tuple[str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    gathered: dict[str, frozenset[str]] = {}
    for stem, others in pairs:
        gathered[stem] = gathered.get(stem, frozenset()) | others
    return {stem: others - {stem} for stem, others in gathered.items()}


OPPOSITES = _gathered(_opposites())
"""From a stem the stems of its opposites."""
NEGATIVE_PREFIXES = ("un", "in", "im", "ir", "il", "non", "dis")
