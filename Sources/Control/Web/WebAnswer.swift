import Exposition
import HTTPTypes
import NIOCore

/// The answer to a request.
struct WebAnswer: Sendable {
    let status: HTTPResponse.Status
    var fields: HTTPFields
    let body: ByteBuffer

    /// What a browser may do with everything that comes from here.
    private static let policy =
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    /// The fields of every answer.
    static func fields(_ contentType: String, isKept: Bool = false) -> HTTPFields {
        var fields = HTTPFields()
        fields[.contentType] = contentType
        fields[.contentSecurityPolicy] = policy
        fields[.xContentTypeOptions] = "nosniff"
        fields[HTTPField.Name.referrerPolicy] = "no-referrer"
        fields[HTTPField.Name.resourcePolicy] = "same-origin"
        // A file of the page changes only with the release, but a browser must notice that.
        fields[.cacheControl] = isKept ? "no-cache" : "no-store"
        return fields
    }

    init(_ status: HTTPResponse.Status, _ contentType: String, _ bytes: some Sequence<UInt8>, isKept: Bool = false) {
        self.status = status
        fields = WebAnswer.fields(contentType, isKept: isKept)
        body = ByteBuffer(bytes: bytes)
    }

    /// One line of text.
    static func text(_ status: HTTPResponse.Status, _ line: String) -> WebAnswer {
        WebAnswer(status, "text/plain; charset=utf-8", "\(line)\n".utf8)
    }

    /// An object with the reason why a request for data or an action was refused.
    static func refusal(_ status: HTTPResponse.Status, _ reason: String) -> WebAnswer {
        WebAnswer(status, "application/json", StateJSON.object(["error": reason]))
    }

    /// The answer to a method that a path does not have.
    static func wrongMethod(allowing methods: String) -> WebAnswer {
        var answer = text(.methodNotAllowed, "use \(methods)")
        answer.fields[.allow] = methods
        return answer
    }

    /// An answer without a body.
    static let done: WebAnswer = {
        var answer = WebAnswer(.noContent, "application/json", [])
        answer.fields[.contentType] = nil
        return answer
    }()
}

extension HTTPField.Name {
    /// A name of which the library knows that it is one.
    private static func known(_ name: String) -> HTTPField.Name {
        guard let known = HTTPField.Name(name) else { preconditionFailure("\(name) is the name of a field") }
        return known
    }

    static let referrerPolicy = known("Referrer-Policy")
    static let resourcePolicy = known("Cross-Origin-Resource-Policy")
    static let furtherHost = known("Host")
    static let fetchSite = known("Sec-Fetch-Site")
}
