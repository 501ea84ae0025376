import CShims
import SystemPackage

/// Makes a descriptor that other code has opened, and owns, close-on-exec.
///
/// A program that another thread starts between the opening and this call still inherits the descriptor. Only the code
/// that opens a descriptor can rule that out.
package func closeOnExec(_ descriptor: CInt) throws(SystemError) {
    _ = try attempt("make a descriptor close-on-exec") { () throws(Errno) in
        try kernel(.fcntl) { shim_set_close_on_exec(descriptor) }
    }
}
