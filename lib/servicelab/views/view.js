// A view that needs nothing but its picture.

function render(context) {
  return mount(context).unmount;
}

export default { render };
