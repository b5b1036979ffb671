"""Makes small real files of each format."""

import datetime as dt
import io
from collections.abc import Sequence

import docx
import pptx
import xlsxwriter
from packed_files import make_zip


def make_pdf(pages: Sequence[Sequence[str]], title: str = "", encrypted: bool = False) -> bytes:
    """Returns a PDF with a line of text every 14 points; an empty line leaves a gap."""
    objects: list[bytes] = []

    def add(content: bytes) -> int:
        objects.append(content)
        return len(objects)

    catalog, tree, font, info = add(b""), add(b""), add(b""), add(f"<< /Title ({title}) >>".encode())
    kids = []
    for lines in pages:
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 11 Tf 50 780 Td {shown} ET".encode()
        content = add(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        page = (
            f"<< /Type /Page /Parent {tree} 0 R /MediaBox [0 0 600 800] /Contents {content} 0 R"
            f" /Resources << /Font << /F1 {font} 0 R >> >> >>"
        )
        kids.append(add(page.encode()))
    objects[catalog - 1] = f"<< /Type /Catalog /Pages {tree} 0 R >>".encode()
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    objects[tree - 1] = f"<< /Type /Pages /Kids [{listed}] /Count {len(kids)} >>".encode()
    objects[font - 1] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"

    out = io.BytesIO()
    out.write(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    xref = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % offset for offset in offsets)
    # A key that belongs to no password, so that PDFium can not open the file.
    key = "<" + "ab" * 32 + ">"
    lock = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {key} /U {key} /P -4 >>" if encrypted else ""
    trailer = f"/Size {len(objects) + 1} /Root {catalog} 0 R /Info {info} 0 R /ID [<00> <00>] {lock}"
    out.write(f"trailer << {trailer} >>\nstartxref\n{xref}\n%%EOF".encode())
    return out.getvalue()


def make_drawn_pdf(pages: Sequence[Sequence[tuple[float, float, str]]]) -> bytes:
    """Returns a PDF with texts at places in points from the left and the bottom, drawn in the given order."""
    placed = make_pdf([[f"page {number}"] for number in range(len(pages))])
    for number, texts in enumerate(pages):
        shown = "".join(f"1 0 0 1 {x} {y} Tm ({text}) Tj " for x, y, text in texts)
        mark = f"BT /F1 11 Tf 50 780 Td (page {number}) Tj 0 -14 Td  ET".encode()
        placed = placed.replace(
            b"<< /Length %d >>\nstream\n%s" % (len(mark), mark),
            b"<< /Length %d >>\nstream\nBT /F1 11 Tf %s ET" % (len(shown) + 14, shown.encode()),
        )
    return placed


def make_docx() -> bytes:
    """Returns a Word document with a title, headings, a list, a table and a footer."""
    document = docx.Document()
    document.core_properties.title = "Quarterly report"
    document.add_heading("Results", level=1)
    document.add_paragraph("Revenue rose in the second quarter.")
    document.add_heading("By region", level=2)
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["Region", "Revenue", "North", "12"], strict=True):
        cell.text = text
    document.sections[0].footer.paragraphs[0].text = "Company confidential"
    document.add_paragraph("Closing remarks.")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def make_pptx() -> bytes:
    """Returns two slides: a title with nested points and a table, and one with a text box in a group and
    notes."""
    deck = pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Plans"
    frame = first.placeholders[1].text_frame
    frame.text = "Grow"
    nested = frame.add_paragraph()
    nested.text, nested.level = "in the north", 1
    table = first.shapes.add_table(2, 2, 0, 0, 900, 900).table
    for cell, text in zip(table.iter_cells(), ["Region", "Revenue", "North", "12"], strict=True):
        cell.text = text
    second = deck.slides.add_slide(deck.slide_layouts[6])
    second.shapes.add_group_shape().shapes.add_textbox(0, 0, 9, 9).text_frame.text = "Thank you"
    second.notes_slide.notes_text_frame.text = "Wait for questions."
    deck.core_properties.title = "The plan"
    out = io.BytesIO()
    deck.save(out)
    return out.getvalue()


def make_xlsx() -> bytes:
    """Returns two sheets: records with a date, a number, a formula and an empty column; and a sentence."""
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True})
    sheet = book.add_worksheet("Prices")
    for column, name in enumerate(["fruit", "", "price", "since", "sum"]):
        sheet.write(0, column, name)
    sheet.write(1, 0, "fig")
    sheet.write(1, 2, 2.5)
    sheet.write_datetime(1, 3, dt.datetime(2026, 1, 2), book.add_format({"num_format": "yyyy-mm-dd"}))
    sheet.write_formula(1, 4, "=C2*2", value=5)
    book.add_worksheet("Notes").write(0, 0, "Prices are by weight.")
    book.close()
    return out.getvalue()


def make_odt() -> bytes:
    """Returns an OpenDocument text with a title, heading, list, table, note and a deletion."""
    names = {"office": "office", "text": "text", "table": "table", "draw": "drawing"}
    spaces = " ".join(f'xmlns:{a}="urn:oasis:names:tc:opendocument:xmlns:{b}:1.0"' for a, b in names.items())
    content = f"""<office:document-content {spaces}><office:body><office:text>
<text:tracked-changes><text:p>taken out</text:p></text:tracked-changes>
<text:h text:outline-level="2">Results</text:h>
<text:p>Revenue<text:s text:c="2"/>rose<text:line-break/>again<text:note>
<text:note-citation>1</text:note-citation><text:note-body><text:p>Unaudited.</text:p></text:note-body></text:note>.</text:p>
<text:list><text:list-item><text:p>north</text:p><text:list><text:list-item><text:p>far north</text:p>
</text:list-item></text:list></text:list-item></text:list>
<table:table><table:table-row><table:table-cell><text:p>Region</text:p></table:table-cell>
<table:table-cell table:number-columns-repeated="16000"/></table:table-row><table:table-row>
<table:table-cell><text:p>North</text:p></table:table-cell><table:table-cell><text:p>12</text:p>
</table:table-cell></table:table-row></table:table></office:text></office:body></office:document-content>"""
    meta = f'<office:document-meta {spaces} xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta>'
    return make_zip(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": content,
            "meta.xml": f"{meta}<dc:title>Report</dc:title></office:meta></office:document-meta>",
        }
    )


def make_epub(encryption: str = "") -> bytes:
    """Returns a book of two chapters, listed out of order, and a page that is not in the reading order."""
    opf = """<package xmlns="http://www.idpf.org/2007/opf"><metadata
xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Book</dc:title></metadata><manifest>
<item id="b" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/one.xhtml" media-type="application/xhtml+xml"/>
<item id="x" href="text/extra.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""
    page = "<html xmlns='http://www.w3.org/1999/xhtml'><body><h1>{}</h1><p>{}</p></body></html>"
    container = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/book.opf": opf,
        "OEBPS/text/two b.xhtml": page.format("Two", "The end."),
        "OEBPS/text/one.xhtml": page.format("One", "It begins."),
        "OEBPS/text/extra.xhtml": page.format("Extra", "Not read."),
    }
    return make_zip(parts | ({"META-INF/encryption.xml": encryption} if encryption else {}))
