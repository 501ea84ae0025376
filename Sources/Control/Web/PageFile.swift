/// A file of the live page, which the program contains.
package struct PageFile: Sendable {
    /// The name in the folder `Page`.
    package let name: String
    /// The value of the header `Content-Type`.
    package let contentType: String
    /// The content.
    package let bytes: [UInt8]

    /// Every file of the page.
    package static let all = [
        PageFile(name: "page.html", contentType: "text/html; charset=utf-8", bytes: PackageResources.page_html),
        PageFile(name: "page.css", contentType: "text/css; charset=utf-8", bytes: PackageResources.page_css),
        PageFile(name: "page.js", contentType: "text/javascript; charset=utf-8", bytes: PackageResources.page_js),
        PageFile(name: "shared.css", contentType: "text/css; charset=utf-8", bytes: PackageResources.shared_css),
        PageFile(name: "shared.js", contentType: "text/javascript; charset=utf-8", bytes: PackageResources.shared_js),
        PageFile(name: "map.js", contentType: "text/javascript; charset=utf-8", bytes: PackageResources.map_js),
        PageFile(name: "icon.svg", contentType: "image/svg+xml", bytes: PackageResources.icon_svg),
    ]

    /// The path under which a browser gets the file.
    var path: String { name == "page.html" ? "/" : "/\(name)" }
}
