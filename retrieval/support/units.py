"""Numbers that are written in words, in English, German, French and Spanish, and the units of measurement."""

_NUMBERS: dict[str, str] = {
    "en": "zero . two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty",
    "de": "null . zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn "
    "sechzehn siebzehn achtzehn neunzehn zwanzig",
    "fr": "zéro . deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    ". . . vingt",
    "es": "cero . dos tres cuatro cinco seis siete ocho nueve diez . doce trece catorce quince dieciséis "
    "diecisiete dieciocho diecinueve veinte",
}
NUMBER_WORDS = {
    word: value for words in _NUMBERS.values() for value, word in enumerate(words.split()) if word != "."
} | {
    word: 10 * tens
    for words in (
        "thirty forty fifty sixty seventy eighty ninety",
        "dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
        "trente quarante cinquante soixante",
        "treinta cuarenta cincuenta sesenta setenta ochenta noventa",
    )
    for tens, word in enumerate(words.split(), 3)
}
"""One is no number here: in many languages it is the article too."""
SCALES = {
    "dozen": 12,
    **dict.fromkeys(("hundred", "hundert", "cien", "ciento"), 100),
    **dict.fromkeys(("thousand", "tausend", "mille", "mil"), 1_000),
    **dict.fromkeys(("million", "millionen", "millions", "millón", "millones"), 1_000_000),
    **dict.fromkeys(("billion", "milliarde", "milliarden", "milliard", "milliards"), 1_000_000_000),
}

_UNITS = """
time 1e-9 ns nanosecond nanoseconds Nanosekunden
time 1e-6 µs μs us microsecond microseconds Mikrosekunden
time 1e-3 ms msec millisecond milliseconds Millisekunden millisecondes milisegundos
time 1 s sec secs second seconds Sekunde Sekunden seconde secondes segundo segundos
time 60 min mins minute minutes Minute Minuten minuto minutos
time 3600 h hr hrs hour hours Stunde Stunden heure heures hora horas
time 86400 day days Tag Tage Tagen jour jours día días
time 604800 week weeks Woche Wochen semaine semaines semana semanas
months 1 month months Monat Monate Monaten mois mes meses
months 12 year years yr yrs Jahr Jahre Jahren an ans année années año años
months 120 decade decades
months 1200 century centuries
bytes 1 B byte bytes octet octets
bytes 1e3 kB KB kilobyte kilobytes
bytes 1e6 MB megabyte megabytes Mo
bytes 1e9 GB gigabyte gigabytes Go
bytes 1e12 TB terabyte terabytes To
bytes 1024 KiB kibibyte kibibytes
bytes 1048576 MiB mebibyte mebibytes
bytes 1073741824 GiB gibibyte gibibytes
bytes 1099511627776 TiB tebibyte tebibytes
bits 1 bit bits Bit Bits
bits 1e3 kbit kilobit kilobits
bits 1e6 Mbit megabit megabits
bits 1e9 Gbit gigabit gigabits
length 1e-9 nm nanometer nanometers nanometre nanometres
length 1e-6 µm μm um micrometer micrometers micrometre micrometres
length 1e-3 mm millimeter millimeters millimetre millimetres
length 1e-2 cm centimeter centimeters centimetre centimetres
length 1 m meter meters metre metres Meter mètre mètres metro metros
length 1e3 km kilometer kilometers kilometre kilometres Kilometer kilomètre kilomètres kilómetro kilómetros
length 0.0254 inch inches
length 0.3048 ft foot feet
length 0.9144 yard yards
length 1609.344 mile miles
mass 1e-9 µg μg ug mcg microgram micrograms
mass 1e-6 mg milligram milligrams
mass 1e-3 g gram grams Gramm gramme grammes gramo gramos
mass 1 kg kilogram kilograms Kilogramm kilo kilos kilogramme kilogrammes kilogramo kilogramos
mass 1e3 tonne tonnes ton tons Tonne Tonnen tonelada toneladas
mass 0.45359237 lb lbs pound pounds
mass 0.028349523125 oz ounce ounces
volume 1e-6 µl μl µL microliter microliters
volume 1e-3 ml mL milliliter milliliters millilitre millilitres
volume 0.1 dl dL deciliter deciliters
volume 1 l L liter liters litre litres
volume 3.785411784 gallon gallons
amount 1e-9 nM
amount 1e-6 µM μM
amount 1e-3 mM
frequency 1 Hz hertz Hertz
frequency 1e3 kHz kilohertz
frequency 1e6 MHz megahertz
frequency 1e9 GHz gigahertz
power 1e-3 mW milliwatt milliwatts
power 1 W watt watts Watt
power 1e3 kW kilowatt kilowatts
power 1e6 MW megawatt megawatts
tension 1 V volt volts Volt
tension 1e3 kV kilovolt kilovolts
celsius 1 °C celsius
fahrenheit 1 °F fahrenheit
angle 1 ° degree degrees Grad degré degrés grado grados
share 1 % percent pct Prozent
share 0.1 ‰
dollar 1 $ dollar dollars USD
euro 1 € euro euros EUR
sterling 1 £ GBP
yen 1 ¥ yen JPY
calories 1 cal calorie calories
calories 1e3 kcal kilocalorie kilocalories
"""

_SHORTEST_WORD = 4
Unit = tuple[str, float]
"""What is measured, and how many of its base unit one is."""


def _units() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for row in _UNITS.split("\n"):
        measured, *rest = row.split()[:2] or [""]
        for name in row.split()[2:]:
            unit = measured, float(rest[0])
            units[name] = unit
            # Symbols tell by their case (mW and MW), words do not.
            if len(name) >= _SHORTEST_WORD:
                units[name.casefold()] = unit
    return units


UNITS = _units()
