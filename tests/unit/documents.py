"""Real small files of each format, made when they are needed."""

import io
from collections.abc import Sequence

import docx


def make_pdf(pages: Sequence[Sequence[str]], title: str = "", encrypted: bool = False) -> bytes:
    """A PDF with a line of text at each 14 points; an empty line leaves a gap."""
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
    for number, content in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    xref = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % offset for offset in offsets)
    # The key of no password: PDFium finds that none opens it.
    key = "<" + "ab" * 32 + ">"
    lock = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {key} /U {key} /P -4 >>" if encrypted else ""
    trailer = f"/Size {len(objects) + 1} /Root {catalog} 0 R /Info {info} 0 R /ID [<00> <00>] {lock}"
    out.write(f"trailer << {trailer} >>\nstartxref\n{xref}\n%%EOF".encode())
    return out.getvalue()


def make_docx() -> bytes:
    """A Word document with a title, headings, a list, a table and a footer."""
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
