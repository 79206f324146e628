"""Words that files use for values, in the languages that are understood."""

from collections.abc import Mapping


def _all(table: Mapping[int, str]) -> dict[str, int]:
    """Each word to its number; words are apart by commas."""
    return {word.strip(): number for number, words in table.items() for word in words.split(",")}


_YES = """
    yes, y, true, t, 1, x, on, ja, j, wahr, oui, o, vrai, si, sí, sì, s, verdadero, vero, waar, sant, sand, sim,
    verdadeiro, tak, prawda, да, д, истина, ναι, αληθής, はい, ✓, ✔, subscribed, opted in, opted-in
"""
_NO = """
    no, n, false, f, 0, -, off, nein, falsch, non, faux, falso, nee, onwaar, nej, falskt, falsk, não, nao, nie,
    fałsz, нет, н, ложь, όχι, ψευδής, いいえ, ✗, ✘, unsubscribed, not subscribed, opted out, opted-out
"""
BOOLEANS: dict[str, bool] = {word.strip().casefold(): True for word in _YES.split(",")}
BOOLEANS |= {word.strip().casefold(): False for word in _NO.split(",")}

CUSTOMER_STATUSES = _all(
    {
        1: "active, enabled, live, aktiv, actif, active customer, activo, attivo, actief, ativo, aktywny, активен, "
        "активный, ενεργός, 有効, customer status active",
        2: "inactive, disabled, archived, inaktiv, inactif, inactivo, inattivo, inactief, inativo, nieaktywny, "
        "неактивен, неактивный, ανενεργός, 無効, customer status inactive, passive",
        3: "vip, customer status vip",
        4: "blocked, banned, suspended, gesperrt, bloqué, bloqueado, bloccato, geblokkeerd, blockerad, blokeret, "
        "zablokowany, заблокирован, αποκλεισμένος, ブロック, customer status blocked",
        5: "pending, invited, unconfirmed, ausstehend, en attente, pendiente, in attesa, in afwachting, väntande, "
        "afventer, pendente, oczekujący, ожидает, σε εκκρεμότητα, 保留中, customer status pending",
    }
)
CUSTOMER_TYPES = _all(
    {
        1: "guest, gast, invité, invitado, ospite, gäst, gæst, convidado, gość, гость, επισκέπτης, ゲスト, "
        "customer type guest",
        2: "registered, customer, retail, account, registriert, kunde, client, cliente, klant, kund, klient, клиент, "
        "member, mitglied, enregistré, registrado, registrato, 会員, customer type registered",
        3: "wholesale, b2b, reseller, dealer, großhandel, grosshandel, händler, grossiste, mayorista, grossista, "
        "groothandel, atacado, hurt, опт, 卸売, customer type wholesale",
        4: "affiliate, partner, affilié, afiliado, affiliato, customer type affiliate",
    }
)
ORDER_STATUSES = _all(
    {
        1: "pending, open, unpaid, new, on hold, authorized, partially paid, awaiting payment, pending payment, "
        "offen, unbezahlt, ausstehend, en attente, pendiente, in attesa, openstaand, obetald, ubetalt, pendente, "
        "oczekujące, nieopłacone, ожидает, ожидает оплаты, σε εκκρεμότητα, 未払い, draft, order status pending",
        2: "paid, processing, captured, in process, bezahlt, in bearbeitung, payé, payée, en cours, pagado, pagada, "
        "pagato, in lavorazione, betaald, betald, betalt, pago, paga, opłacone, zapłacone, оплачен, оплачено, "
        "πληρωμένη, 支払い済み, 支払済み, success, successful, order status paid",
        3: "fulfilled, shipped, completed, complete, closed, done, sent, versendet, versandt, abgeschlossen, erledigt, "
        "expédié, expédiée, terminé, terminée, enviado, completado, completada, spedito, completato, verzonden, "
        "voltooid, afgerond, skickad, slutförd, sendt, afsluttet, enviada, concluído, concluída, wysłane, "
        "zrealizowane, отправлен, выполнен, завершен, завершён, απεστάλη, ολοκληρώθηκε, 発送済み, 完了, "
        "order status fulfilled",
        4: "delivered, geliefert, zugestellt, livré, livrée, entregado, entregada, consegnato, geleverd, bezorgd, "
        "levererad, leveret, entregue, dostarczone, доставлен, παραδόθηκε, 配達済み, picked up, order status delivered",
        5: "cancelled, canceled, voided, void, failed, expired, rejected, storniert, abgebrochen, annulé, annulée, "
        "cancelado, cancelada, annullato, annullata, geannuleerd, avbruten, makulerad, annulleret, anulowane, "
        "отменен, отменён, ακυρώθηκε, キャンセル, キャンセル済み, order status cancelled",
        6: "refunded, fully refunded, erstattet, remboursé, remboursée, reembolsado, reembolsada, rimborsato, "
        "terugbetaald, återbetald, refunderet, zwrócone, возвращен, возврат, επιστράφηκε, 返金済み, "
        "order status refunded",
        7: "partially refunded, partial refund, teilweise erstattet, partiellement remboursé, "
        "order status partially refunded",
        8: "returned, zurückgegeben, retourniert, retourné, devuelto, reso, geretourneerd, returnerad, returneret, "
        "devolvido, order status returned",
        9: "partially returned, teilweise zurückgegeben, order status partially returned",
    }
)

LANGUAGES: dict[str, str] = {
    name.strip(): tag
    for tag, names in {
        "en": "english, englisch, anglais, inglés, inglese, engels",
        "de": "german, deutsch, allemand, alemán, tedesco, duits",
        "fr": "french, français, francais, französisch, francés, francese, frans",
        "es": "spanish, español, espanol, spanisch, espagnol, spagnolo, spaans, castellano",
        "it": "italian, italiano, italienisch, italien, italiaans",
        "nl": "dutch, nederlands, niederländisch, néerlandais, holandés, olandese",
        "sv": "swedish, svenska, schwedisch",
        "da": "danish, dansk, dänisch",
        "nb": "norwegian, norsk, bokmål",
        "fi": "finnish, suomi",
        "pt": "portuguese, português, portugues, portugiesisch",
        "pl": "polish, polski, polnisch",
        "ru": "russian, русский, russisch",
        "uk": "ukrainian, українська",
        "el": "greek, ελληνικά, griechisch",
        "cs": "czech, čeština",
        "hu": "hungarian, magyar",
        "tr": "turkish, türkçe",
        "ja": "japanese, 日本語, japanisch",
        "zh": "chinese, 中文",
        "ko": "korean, 한국어",
        "ar": "arabic, العربية",
    }.items()
    for name in names.split(",")
}

_MONTHS = (
    "january jan januar jänner jän janvier janv enero ene gennaio gen januari janeiro stycznia styczeń января янв "
    "ιανουαρίου",
    "february feb februar février févr fév febrero febbraio februari fevereiro fev lutego luty февраля фев "
    "φεβρουαρίου",
    "march mar märz mär mrz mars marzo maart mrt marts março marca marzec марта мар μαρτίου",
    "april apr avril avr abril abr aprile kwietnia kwiecień апреля апр απριλίου",
    "may mai mayo maggio mag mei maj maio maja мая май μαΐου",
    "june jun juni juin junio giugno giu junho czerwca czerwiec июня июн ιουνίου",
    "july jul juli juillet juil julio luglio lug julho lipca lipiec июля июл ιουλίου",
    "august aug août agosto ago augustus augusti sierpnia sierpień августа авг αυγούστου",
    "september sep sept septembre septiembre settembre set setembro września wrzesień сентября сен σεπτεμβρίου",
    "october oct oktober okt octobre octubre ottobre ott outubro out października październik октября окт οκτωβρίου",
    "november nov novembre noviembre novembro listopada listopad ноября ноя νοεμβρίου",
    "december dec dezember dez décembre déc diciembre dic dicembre dezembro grudnia grudzień декабря дек δεκεμβρίου",
)
MONTHS: dict[str, int] = {word: i for i, words in enumerate(_MONTHS, 1) for word in words.split()}
