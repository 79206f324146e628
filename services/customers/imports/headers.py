"""What columns are called: in thirteen languages, and in the exports of well-known shops."""

import re
import unicodedata
from collections.abc import Mapping

# Concept → names, in lower case, apart by commas; the first ones are in English, then German, French, Spanish,
# Italian, Dutch, Swedish, Danish, Portuguese, Polish, Russian, Greek, Japanese.
_NAMES: dict[str, str] = {
    "email": "email, e mail, email address, e mail address, mail, mail address, email id, contact email, customer "
    "email, user email, billing email, e mail adresse, email adresse, mailadresse, kunden email, courriel, adresse "
    "email, adresse e mail, adresse mail, mél, correo, correo electrónico, correo electronico, dirección de correo, "
    "indirizzo email, indirizzo e mail, posta elettronica, e mailadres, emailadres, mailadres, e post, epost, "
    "e postadress, epostadress, mejl, e mailadresse, mailadresse, endereço de email, endereço de e mail, "
    "adres email, "
    "adres e mail, электронная почта, эл почта, почта, имейл, адрес электронной почты, email адрес, "
    "ηλεκτρονικό ταχυδρομείο, διεύθυνση email, メール, メールアドレス, eメール, 電子メール",
    "phone": "phone, phone number, telephone, telephone number, mobile, mobile phone, mobile number, cell, "
    "cell phone, "
    "tel, tel no, contact number, phone no, customer phone, billing phone, whatsapp number, telefon, telefonnummer, "
    "handy, handynummer, mobil, mobilnummer, mobiltelefon, rufnummer, tel nr, téléphone, numéro de téléphone, "
    "portable, mobile téléphone, tél, teléfono, telefono, número de teléfono, móvil, celular, numero di telefono, "
    "cellulare, telefoonnummer, telefoon, mobiel, mobiel nummer, gsm, mobilnr, tlf, telefone, número de telefone, "
    "telemóvel, telefone celular, numer telefonu, nr telefonu, komórka, телефон, номер телефона, мобильный, "
    "мобильный телефон, τηλέφωνο, κινητό, αριθμός τηλεφώνου, 電話, 電話番号, 携帯, 携帯電話, 携帯番号",
    "first_name": "first name, firstname, given name, forename, fname, customer first name, "
    "billing first name, vorname, "
    "rufname, prénom, prenom, nombre, nombre de pila, nome di battesimo, voornaam, förnamn, fornamn, fornavn, "
    "primeiro nome, imię, imie, имя, όνομα, 名, 名前 名, ファーストネーム",
    "last_name": "last name, lastname, surname, family name, lname, customer last name, billing last name, nachname, "
    "familienname, zuname, nom de famille, apellido, apellidos, cognome, achternaam, familienaam, efternamn, "
    "efternavn, sobrenome, apelido, último nome, nazwisko, фамилия, επώνυμο, επίθετο, 姓, 名字, 苗字",
    "full_name": "full name, fullname, customer name, client name, contact name, display name, billing name, name, "
    "kundenname, vollständiger name, ganzer name, vor und nachname, nom complet, nom et prénom, nom du client, "
    "nombre completo, nombre y apellidos, nome completo, nome e cognome, volledige naam, naam, klantnaam, namn, "
    "fullständigt namn, kundnamn, navn, fulde navn, kundenavn, imię i nazwisko, imie i nazwisko, полное имя, фио, "
    "имя и фамилия, ονοματεπώνυμο, πλήρες όνομα, 氏名, お名前, 名前, 顧客名",
    "born_on": "date of birth, birth date, birthdate, birthday, dob, born on, born, geburtsdatum, geburtstag, "
    "geboren, "
    "geboren am, date de naissance, anniversaire, né le, fecha de nacimiento, nacimiento, cumpleaños, "
    "data di nascita, "
    "compleanno, nato il, geboortedatum, verjaardag, födelsedatum, födelsedag, fødselsdato, fødselsdag, "
    "data de nascimento, aniversário, nascimento, data urodzenia, urodziny, дата рождения, день рождения, "
    "ημερομηνία γέννησης, γενέθλια, 生年月日, 誕生日",
    "gender": "gender, sex, geschlecht, genre, sexe, género, genero, sexo, genere, sesso, geslacht, kön, køn, "
    "gênero, "
    "płeć, plec, пол, φύλο, 性別",
    "language": "language, locale, lang, preferred language, customer locale, sprache, langue, idioma, lingua, taal, "
    "språk, sprog, língua, język, jezyk, язык, γλώσσα, 言語",
    "time_zone": "time zone, timezone, tz, zeitzone, fuseau horaire, zona horaria, fuso orario, tijdzone, tidszon, "
    "tidszone, fuso horário, strefa czasowa, часовой пояс, ζώνη ώρας, タイムゾーン",
    "company": "company, company name, organization, organisation, business name, employer, firma, firmenname, "
    "unternehmen, société, entreprise, raison sociale, empresa, compañía, azienda, società, ragione sociale, "
    "bedrijf, "
    "bedrijfsnaam, företag, företagsnamn, virksomhed, firmanavn, nazwa firmy, компания, организация, εταιρεία, "
    "επωνυμία, 会社, 会社名",
    "customer_id": "customer id, customerid, customer number, customer no, client id, contact id, user id, "
    "member id, "
    "external id, customer reference, customer code, account number, kundennummer, kunden id, kundennr, kunden nr, "
    "mitgliedsnummer, numéro client, id client, n client, code client, identifiant client, número de cliente, "
    "id de cliente, id cliente, codice cliente, numero cliente, klantnummer, klant id, klantnr, kundnummer, kund id, "
    "kundenummer, kunde id, número do cliente, id do cliente, numer klienta, id klienta, номер клиента, id клиента, "
    "код клиента, αριθμός πελάτη, κωδικός πελάτη, 顧客番号, 顧客id, 会員番号, 会員id",
    "customer_status": "customer status, account status, account state, kundenstatus, statut client, "
    "estado del cliente, "
    "stato cliente, klantstatus, kundstatus, status do cliente, status klienta, статус клиента, κατάσταση πελάτη, "
    "会員ステータス",
    "customer_type": "customer type, type of customer, customer group, kundentyp, kundenart, type de client, "
    "tipo de cliente, tipo cliente, klanttype, kundtyp, kundetype, typ klienta, тип клиента, τύπος πελάτη, 顧客タイプ",
    "customer_tags": "customer tags, kundentags, labels, étiquettes, etiquetas, etichette, taggar, mærker, "
    "tagi, метки, "
    "теги, ετικέτες, タグ",
    "preferred_categories": "preferred categories, favourite categories, favorite categories, lieblingskategorien",
    "email_verified": "email verified, verified email, email confirmed, e mail verified, e mail bestätigt",
    "phone_verified": "phone verified, phone confirmed, telefon bestätigt",
    "handles.telegram": "telegram, telegram username, telegram user",
    "handles.telegram_chat_id": "telegram chat id",
    "handles.whatsapp": "whatsapp",
    "handles.facebook": "facebook",
    "handles.instagram": "instagram, instagram handle",
    "handles.x": "x twitter, twitter, twitter handle",
    "order_id": "order id, orderid, order number, order no, order nr, order reference, order name, order, "
    "invoice number, "
    "receipt number, transaction id, sale id, bestellnummer, bestell nr, bestell id, bestellung, auftragsnummer, "
    "auftragsnr, belegnummer, rechnungsnummer, numéro de commande, n commande, id commande, commande, "
    "número de pedido, id de pedido, pedido, numero ordine, numero d ordine, id ordine, ordine, bestelnummer, "
    "ordernummer, beställningsnummer, ordrenummer, ordre id, número do pedido, id do pedido, numer zamówienia, "
    "id zamówienia, nr zamówienia, номер заказа, id заказа, заказ, αριθμός παραγγελίας, κωδικός παραγγελίας, "
    "注文番号, 注文id",
    "placed_at": "order date, ordered at, ordered on, placed at, date ordered, purchase date, purchased at, "
    "date of order, "
    "transaction date, order created at, sale date, created at, order time, bestelldatum, bestellt am, "
    "auftragsdatum, "
    "kaufdatum, datum der bestellung, date de commande, date commande, date d achat, fecha de pedido, "
    "fecha del pedido, fecha de compra, data ordine, data dell ordine, data di acquisto, besteldatum, orderdatum, "
    "aankoopdatum, beställningsdatum, köpdatum, ordredato, købsdato, data do pedido, data da compra, "
    "data zamówienia, "
    "data zakupu, дата заказа, дата покупки, ημερομηνία παραγγελίας, ημερομηνία αγοράς, 注文日, 注文日時, 購入日",
    "order_status": "order status, financial status, payment status, order state, bestellstatus, auftragsstatus, "
    "zahlungsstatus, statut de la commande, statut commande, estado del pedido, stato ordine, stato dell ordine, "
    "bestelstatus, orderstatus, ordrestatus, status do pedido, status zamówienia, статус заказа, "
    "κατάσταση παραγγελίας, 注文ステータス, 注文状況",
    "currency": "currency, currency code, order currency, währung, waehrung, devise, monnaie, moneda, divisa, "
    "valuta, "
    "moeda, waluta, валюта, νόμισμα, 通貨",
    "subtotal": "subtotal, sub total, order subtotal, items total, zwischensumme, sous total, subtotale, subtotaal, "
    "delsumma, suma częściowa, подытог, промежуточный итог, υποσύνολο, 小計",
    "discount": "order discount, discount amount, discount total, total discount, discount, rabatt, nachlass, "
    "remise, "
    "réduction, descuento, sconto, korting, rabat, desconto, скидка, έκπτωση, 割引, 値引き",
    "shipping": "shipping, shipping cost, shipping costs, shipping total, shipping amount, delivery cost, freight, "
    "versand, versandkosten, frais de port, frais de livraison, livraison, gastos de envío, costo de envío, envío, "
    "spese di spedizione, spedizione, verzendkosten, fraktkostnad, frakt, fragt, forsendelse, frete, envio, "
    "koszt dostawy, koszt wysyłki, dostawa, стоимость доставки, доставка, μεταφορικά, έξοδα αποστολής, 送料",
    "tax": "tax, taxes, tax total, total tax, vat, vat amount, sales tax, tax amount, steuer, steuern, mwst, "
    "mehrwertsteuer, ust, taxe, tva, impuesto, impuestos, iva, imposta, tasse, btw, belasting, moms, skatt, imposto, "
    "impostos, podatek, vat kwota, налог, ндс, φόρος, φπα, 税, 消費税, 税額",
    "tax_included": "tax included, taxes included, prices include tax, steuer enthalten, inkl mwst",
    "total": "total, order total, grand total, total amount, total price, amount paid, order amount, order value, "
    "total paid, revenue, summe, gesamtsumme, gesamt, gesamtbetrag, endbetrag, bestellsumme, total ttc, "
    "montant total, "
    "montant, importe total, importe, total del pedido, totale, totale ordine, importo totale, importo, totaal, "
    "totaalbedrag, bedrag, summa, totalsumma, belopp, beløb, samlet beløb, valor total, total do pedido, "
    "valor, suma, "
    "razem, kwota, wartość zamówienia, итого, сумма, сумма заказа, всего, σύνολο, συνολικό ποσό, ποσό, 合計, 合計金額, "
    "総額, 金額, 注文金額",
    "refunded": "refunded, refunded amount, refund amount, amount refunded, total refunded, erstattet, "
    "rückerstattung, "
    "remboursé, montant remboursé, reembolsado, importe reembolsado, rimborsato, terugbetaald, återbetalt, "
    "refunderet, "
    "zwrócono, возвращено, сумма возврата, επιστροφή χρημάτων, 返金額",
    "channel": "channel, sales channel, order channel, kanal, vertriebskanal, canal, canal de vente, canal de venta, "
    "canale, canale di vendita, verkoopkanaal, kanaal, kanał, канал, канал продаж, κανάλι, チャネル, 販売チャネル",
    "store": "store, store name, shop, location, branch, pos location, filiale, laden, geschäft, magasin, boutique, "
    "tienda, negozio, winkel, filiaal, butik, loja, sklep, магазин, κατάστημα, 店舗, 店舗名",
    "order_tags": "order tags, bestelltags",
    "revision": "order revision, revision, order updated at, updated at, last modified, modified at, geändert am, "
    "modifié le, actualizado, aktualisiert am, 更新日時",
    "sku": "sku, item sku, product sku, variant sku, article number, item number, item code, product code, "
    "artikelnummer, artikelnr, artikel nr, référence, référence produit, code article, referencia, "
    "código de producto, "
    "codice articolo, codice prodotto, productcode, artikelcode, varenummer, código do produto, kod produktu, "
    "артикул, "
    "код товара, κωδικός προϊόντος, 商品コード, 商品番号, 品番",
    "item_name": "item name, item, product, product name, article, article name, product title, line item, artikel, "
    "artikelname, produkt, produktname, bezeichnung, article nom, produit, nom du produit, producto, "
    "nombre del producto, artículo, prodotto, nome prodotto, articolo, productnaam, produktnamn, vare, varenavn, "
    "produto, nome do produto, nazwa produktu, товар, наименование, название товара, προϊόν, όνομα προϊόντος, 商品, "
    "商品名",
    "category": "category, product category, product type, kategorie, warengruppe, catégorie, categoría, categoria, "
    "categorie, kategori, kategoria, категория, κατηγορία, カテゴリ, カテゴリー",
    "brand": "brand, vendor, manufacturer, make, marke, hersteller, marque, marca, merk, märke, mærke, marka, "
    "producent, бренд, марка, μάρκα, ブランド, メーカー",
    "quantity": "quantity, qty, item quantity, quantity ordered, number of items, units, pieces, menge, "
    "anzahl, stück, "
    "stückzahl, quantité, qté, cantidad, unidades, quantità, qta, aantal, hoeveelheid, antal, kvantitet, quantidade, "
    "qtd, ilość, liczba, sztuk, количество, кол во, ποσότητα, τεμάχια, 数量, 個数",
    "unit_price": "unit price, item price, price, price per unit, price each, product price, einzelpreis, "
    "stückpreis, "
    "preis, prix unitaire, prix, precio unitario, precio, prezzo unitario, prezzo, stukprijs, prijs, "
    "styckpris, pris, "
    "stykpris, preço unitário, preço, cena jednostkowa, cena, цена, цена за единицу, τιμή, τιμή μονάδας, 単価, 価格",
    "item_discount": "item discount, line discount, lineitem discount, line item discount, positionsrabatt",
    "line_total": "line total, line amount, item total, line price, row total, line item total, positionssumme, "
    "gesamtpreis, total ligne, total línea, totale riga, regeltotaal, radsumma, linjetotal, total da linha, "
    "wartość pozycji, сумма позиции, σύνολο γραμμής, 明細金額",
    "street": "street, street address, address, address 1, address1, address line 1, addressline1, street 1, street "
    "line 1, line 1, default address address1, billing address 1, billing address1, billing street, home address, "
    "mailing address, postal address, straße, strasse, str, straße und hausnummer, straße hausnummer, straße nr, "
    "anschrift, adresse, adresszeile 1, rue, adresse 1, adresse postale, calle, dirección, domicilio, direccion, "
    "indirizzo, via, straat, adres, straatnaam, straat en huisnummer, gata, gatuadress, adress, gade, vej, "
    "vejnavn, endereço, rua, morada, logradouro, ulica, ulica i numer, adres 1, улица, адрес, διεύθυνση, οδός, "
    "住所, 番地, 住所1",
    "street_2": "address line 2, address 2, address2, addressline2, street 2, street line 2, line 2, apartment, suite, "
    "unit, default address address2, billing address 2, billing address2, adresszusatz, adresszeile 2, zusatz, "
    "complément d adresse, adresse 2, dirección 2, indirizzo 2, adresregel 2, adres 2, complemento, 住所2, 建物名",
    "city": "city, town, city town, locality, municipality, default address city, billing city, ort, stadt, "
    "wohnort, ville, "
    "commune, ciudad, localidad, población, poblacion, città, citta, comune, località, stad, plaats, woonplaats, "
    "postort, by, bynavn, cidade, miasto, miejscowość, город, населенный пункт, πόλη, 市区町村, 都市, 市",
    "state": "state or province, state code, state province, province, province code, region, county, prefecture, "
    "default address province code, default address province, billing state, billing province, state region, "
    "bundesland, kanton, département, région, provincia, comunidad autónoma, regione, provincie, län, landskap, "
    "distrito, uf, województwo, область, регион, νομός, περιφέρεια, 都道府県",
    "postal_code": "postal code, postcode, zip, zip code, zipcode, zip postal code, post code, postal, "
    "default address zip, "
    "billing zip, billing postcode, plz, postleitzahl, code postal, código postal, codigo postal, cp, cap, "
    "codice postale, "
    "postnummer, postnr, cep, kod pocztowy, индекс, почтовый индекс, ταχυδρομικός κώδικας, τκ, τ κ, 郵便番号",
    "country": "country, country code, country name, country region, nation, default address country code, default "
    "address country, billing country, country iso, land, staat, länderkürzel, ländercode, pays, code pays, país, "
    "pais, código de país, paese, nazione, codice paese, landcode, landskod, landekode, kraj, страна, χώρα, 国, 国名",
    "address_label": "address label, address name, address title",
    "recipient": "recipient, addressee, empfänger, destinataire, destinatario, ontvanger",
    "points": "points, points balance, point balance, balance, available points, current points, spendable points, "
    "loyalty points, reward points, remaining points, points remaining, points amount, punkte, punktestand, "
    "punkteguthaben, treuepunkte, bonuspunkte, verfügbare punkte, guthaben, solde de points, solde, "
    "points disponibles, points fidélité, puntos, saldo de puntos, puntos disponibles, saldo, punti, saldo punti, "
    "punti disponibili, punten, puntensaldo, spaarpunten, saldo punten, poäng, poängsaldo, bonuspoäng, "
    "pointsaldo, bonuspoint, pontos, saldo de pontos, pontos disponíveis, punkty, saldo punktów, stan punktów, "
    "баллы, баланс баллов, бонусы, остаток баллов, πόντοι, υπόλοιπο πόντων, ポイント, ポイント残高, 保有ポイント",
    "points_expire": "points expire on, points expire, points expiry, points expiry date, points expiration date, "
    "point expiry, expires at, expires on, expires, expiry, expiry date, expiration, expiration date, valid until, "
    "valid to, good until, verfällt am, verfallsdatum, verfall, ablaufdatum, läuft ab am, gültig bis, "
    "date d expiration, expire le, expiration des points, valable jusqu au, fecha de caducidad, caducidad, "
    "caduca el, fecha de vencimiento, vencimiento, válido hasta, data di scadenza, scadenza, scade il, valido fino al, "
    "vervaldatum, vervalt op, verloopt op, geldig tot, utgångsdatum, förfaller, giltig till, udløbsdato, udløber, "
    "gyldig til, data de validade, validade, expira em, válido até, data ważności, wygasa, ważne do, "
    "срок действия, действует до, сгорают, дата сгорания, истекает, ημερομηνία λήξης, λήξη, ισχύει έως, "
    "有効期限, 失効日, ポイント有効期限",
    "points_earned": "points earned on, points earned at, earned at, earned on, date earned, earning date, "
    "earned date, awarded at, awarded on, issued on, issued at, issue date, gesammelt am, verdient am, "
    "gutgeschrieben am, "
    "date d acquisition, acquis le, gagnés le, fecha de obtención, obtenidos el, data di accredito, accreditati il, "
    "verdiend op, gespaard op, intjänad, optjent, data de acúmulo, ganhos em, data naliczenia, "
    "дата начисления, начислены, ημερομηνία απόκτησης, 獲得日, 付与日",
    "lifetime_points": "lifetime points, total points earned, points earned, total earned, lifetime earned, "
    "all time points, tier points, status points, qualifying points, statuspunkte, gesammelte punkte, "
    "punkte insgesamt, points cumulés, total des points, puntos acumulados, puntos totales, punti totali, "
    "punti accumulati, totaal punten, totalt intjänade poäng, optjente point, pontos acumulados, "
    "punkty łącznie, всего баллов, накоплено баллов, συνολικοί πόντοι, 累計ポイント",
    "program": "program, programme, program name, program id, loyalty program, programm, treueprogramm, "
    "programme de fidélité, programa, programa de fidelidad, programma, programma fedeltà, "
    "loyaliteitsprogramma, lojalitetsprogram, programa de fidelidade, program lojalnościowy, программа, πρόγραμμα, "
    "プログラム",
    "reason": "reason, comment, description, memo, grund, begründung, kommentar, beschreibung, raison, motif, "
    "commentaire, motivo, razón, comentario, causale, descrizione, reden, omschrijving, orsak, årsag, descrição, "
    "powód, opis, причина, комментарий, αιτία, 理由, 備考",
    "reference": "reference number, booking number, booking id, transaction id, transaction number, entry id, "
    "buchungsnummer, transaktionsnummer, referenznummer, numéro de transaction, número de transacción, "
    "numero transazione, transactienummer, transaktionsnummer, número da transação, numer transakcji, "
    "номер транзакции, 取引番号",
    # Names that mean something only in one kind of file.
    "id": "id, reference id, ref, reference, nr, no, number, nummer, номер, id nr, 番号",
    "status": "status, state, statut, estado, stato, estatus, статус, κατάσταση, ステータス, 状態, 状況",
    "tags": "tags, tag, schlagworte, stichworte",
    "date": "date, datum, time, fecha, data, dato, дата, ημερομηνία, 日付, date created, created, zeitpunkt",
}

_CAMEL = re.compile(r"(?<=[a-zа-яß-ÿ])(?=[A-ZА-Я][a-zа-яß-ÿ])")


def normal(name: str) -> str:
    """A header as it is compared: lower case, without marks, words apart by one space."""
    text = unicodedata.normalize("NFKC", _CAMEL.sub(" ", name)).casefold()
    text = re.sub(r"\(\d+\)\s*$", "", text)  # our own number of a double
    return " ".join(re.sub(r"[\W_]+", " ", text).split())


def _index() -> dict[str, tuple[str, bool]]:
    found: dict[str, tuple[str, bool]] = {}
    for concept, names in _NAMES.items():
        for i, name in enumerate(names.split(",")):
            found.setdefault(normal(name), (concept, i == 0))
    return found


# Normalised name → concept, and whether it is the concept's first name.
NAMES: Mapping[str, tuple[str, bool]] = _index()

# The exports of well-known shops: headers that tell them, and what their columns are ("": left out on purpose).
EXPORTS: tuple[tuple[str, frozenset[str], Mapping[str, str]], ...] = (
    (
        "Shopify orders",
        frozenset({"name", "email", "financial status", "lineitem name", "lineitem price"}),
        {
            "name": "order_id",
            "email": "email",
            "phone": "phone",
            "financial status": "order_status",
            "fulfillment status": "",
            "paid at": "",
            "fulfilled at": "",
            "cancelled at": "",
            "created at": "placed_at",
            "currency": "currency",
            "subtotal": "",  # after discounts, so not what the items add up to
            "shipping": "shipping",
            "taxes": "tax",
            "total": "total",
            "discount amount": "discount",
            "discount code": "",
            "refunded amount": "refunded",
            "lineitem quantity": "quantity",
            "lineitem name": "item_name",
            "lineitem price": "unit_price",
            "lineitem sku": "sku",
            "lineitem discount": "",  # part of the order's discount already
            "vendor": "brand",
            "tags": "order_tags",
            "location": "store",
            "source": "channel",
            "id": "",
            "billing name": "full_name",
            "shipping name": "",
            "billing phone": "",
            "billing street": "",
            "billing address1": "street",
            "billing address2": "street_2",
            "billing company": "company",
            "billing city": "city",
            "billing zip": "postal_code",
            "billing province": "state",
            "billing province name": "",
            "billing country": "country",
            **{
                f"shipping {part}": ""
                for part in (
                    *(
                        "street",
                        "address1",
                        "address2",
                        "company",
                        "city",
                        "zip",
                        "province",
                        "province name",
                    ),
                    *("country", "phone"),
                )
            },
        },
    ),
    (
        "Shopify customers",
        frozenset({"first name", "last name", "email", "total spent", "total orders"}),
        {
            "customer id": "customer_id",
            "first name": "first_name",
            "last name": "last_name",
            "email": "email",
            "phone": "phone",
            "tags": "tags",
            "default address company": "company",
            "company": "company",
            "default address phone": "",
            "address1": "street",
            "address2": "street_2",
            "city": "city",
            "province": "",
            "province code": "state",
            "country": "",
            "country code": "country",
            "zip": "postal_code",
            "default address address1": "street",
            "default address address2": "street_2",
            "default address city": "city",
            "default address province code": "state",
            "default address country code": "country",
            "default address zip": "postal_code",
            "total spent": "",
            "total orders": "",
            "note": "",
            "tax exempt": "",
        },
    ),
    (
        "Klaviyo profiles",
        frozenset({"klaviyo id"}),
        {
            "klaviyo id": "customer_id",
            "organization": "company",
            "birthday": "born_on",
            "locale": "language",
            "state region": "state",
            "state": "state",
        },
    ),
    (
        "Mailchimp audience",
        frozenset({"email address", "member rating", "leid"}),
        {
            "email address": "email",
            "birthday": "",  # day and month only
            "address": "",  # all of it in one cell
            "country": "",  # these are guessed from where an e-mail was opened
            "region": "",
            "cc": "",
            "leid": "",
            "euid": "customer_id",
            "member rating": "",
            "timezone": "time_zone",
            "tags": "tags",
            "language": "language",
        },
    ),
    (
        "Square customers",
        frozenset({"reference id", "square customer id", "email address"}),
        {
            "square customer id": "customer_id",
            "reference id": "",
            "company name": "company",
            "birthday": "born_on",
            "street address 1": "street",
            "street address 2": "street_2",
            "state": "state",
        },
    ),
    (
        "WooCommerce orders",
        frozenset({"order id", "billing email", "order total"}),
        {
            "order id": "order_id",
            "order number": "",
            "order date": "placed_at",
            "date": "placed_at",
            "status": "order_status",
            "order status": "order_status",
            "customer id": "customer_id",
            "customer user": "customer_id",
            "billing email": "email",
            "billing phone": "phone",
            "billing first name": "first_name",
            "billing last name": "last_name",
            "billing company": "company",
            "billing address 1": "street",
            "billing address 2": "street_2",
            "billing city": "city",
            "billing state": "state",
            "billing postcode": "postal_code",
            "billing country": "country",
            "shipping total": "shipping",
            "order shipping": "shipping",
            "tax total": "tax",
            "order tax": "tax",
            "order discount": "discount",
            "discount total": "discount",
            "order total": "total",
            "order currency": "currency",
            "refunded total": "refunded",
        },
    ),
    (
        "WooCommerce customers",
        frozenset({"user email", "user login"}),
        {
            "user email": "email",
            "customer id": "customer_id",
            "user id": "customer_id",
            "user login": "",
            "role": "",
            "billing address 1": "street",
            "billing address 2": "street_2",
            "billing city": "city",
            "billing state": "state",
            "billing postcode": "postal_code",
            "billing country": "country",
        },
    ),
)
